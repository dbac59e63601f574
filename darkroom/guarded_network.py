"""Connections to hosts on the public network and, unless the operator says so, to no others.

The name of a host proves nothing, so it is the socket that is guarded: a host is looked up once, every address found
must be a public one, the connection goes to that very address, and its other end is looked at again.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import quote, urlsplit

import anyio
import httpcore

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to numeric addresses; raises OSError or UnicodeError."""


_SAFE = "/:@!$&'()*+,;=-._~%?"
"""Characters of a path and a query that stay as they are."""


class NotAnAddressError(Exception):
    """A text that names no host that could be connected to; says what would."""


class NotPublicError(Exception):
    """A host that is not, or not only, on the public network; or that does not exist, which nobody shall find out."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """The numeric addresses of a host, IPv6 and IPv4."""
    return [str(entry[4][0]) for entry in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were looked at, and to no others."""

    def __init__(self, resolve: Resolve = look_up, *, public_only: bool = True) -> None:
        self._resolve = resolve
        self._public_only = public_only
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the protocol of httpcore
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to a host. Raises NotPublicError, httpcore.ConnectError."""
        last: Exception = NotPublicError()
        for address in await self._allowed(host, port):
            try:
                stream = await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
                continue
            if self._public_only and not is_public(str(stream.get_extra_info("server_addr")[0])):
                await stream.aclose()
                raise NotPublicError
            return stream
        raise last

    async def connect_unix_socket(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Never: an address leads to a host."""
        raise NotPublicError

    async def sleep(self, seconds: float) -> None:
        """Between two attempts."""
        await anyio.sleep(seconds)

    async def _allowed(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, all of them public where they must be."""
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise NotPublicError from None
        if self._public_only and not all(map(is_public, found)):
            raise NotPublicError
        return list(dict.fromkeys(found))


def parse_address(address: str) -> tuple[httpcore.URL, str]:
    """The parts of an address, and what its host is to be called. Raises NotAnAddressError."""
    try:
        parts = urlsplit(address)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except (ValueError, UnicodeError):
        host, port, parts = b"", None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise NotAnAddressError("an address that begins with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise NotAnAddressError("an address without a user name")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    shown = f"[{host.decode()}]" if b":" in host else host.decode()
    shown += f":{port}" if port is not None else ""
    return httpcore.URL(scheme=parts.scheme.encode(), host=host, port=port, target=target.encode()), shown


def is_numeric(host: str) -> bool:
    """Whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether a numeric address is one that anybody on the internet could reach, and means no other one inside."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if ip.scope_id or ip.sixtofour or ip.teredo:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
