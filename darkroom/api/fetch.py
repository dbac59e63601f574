"""Pictures that a request names by their address: fetched where the operator allows it, before anything else happens.

Only what the operator allows is connected to, see `guarded_network`; every redirect begins anew. Nothing of the
client's request is passed on, and no proxy of the environment is asked. Knows nothing of what the pictures are for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin

import anyio
import httpcore
from anyio import to_thread

from darkroom.api.context import Context
from darkroom.api.models import ExtrasBatch, Wire
from darkroom.errors import BadRequest
from darkroom.guarded_network import (
    GuardedNetwork,
    NotAnAddressError,
    NotPublicError,
    Resolve,
    look_up,
    parse_address,
)
from darkroom.images.codecs import is_address, to_base64

W = TypeVar("W", bound=Wire)

_FIELDS = ("init_images", "mask", "latent_mask", "firstpass_image", "image")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TYPES = ("image/", "application/octet-stream", "binary/octet-stream")

NOT_ALLOWED = "Requests not allowed"
NOT_PUBLIC = "Request to local resource not allowed"
NOT_A_PICTURE = "Invalid image url"


class BadAddress(BadRequest):
    """A picture's address that must not or cannot be fetched. The message begins with A1111's words for it."""

    code = "bad_image_url"

    def __init__(self, words: str, field: str, address: str, allowed: str) -> None:
        super().__init__(field, address, allowed)
        self.args = (f"{words}: {self}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be fetched. `limit_s` is for one picture with all its redirects, `wait_s` for one silence."""

    public_only: bool = True
    agent: str = ""
    max_bytes: int = 100_000_000
    max_redirects: int = 5
    limit_s: float = 30.0
    wait_s: float = 10.0


async def with_pictures(wire: W, context: Context) -> W:
    """The request with every address replaced by the picture that is there, as base64. Raises BadAddress."""
    if not any(True for _ in _addresses(wire)):
        return wire
    options = context.options.snapshot()
    for field, address in _addresses(wire):
        if not options.api_enable_requests:
            raise BadAddress(NOT_ALLOWED, field, address, "the picture itself as base64")
    limit, count = context.settings.max_images, len(list(_addresses(wire)))
    if count > limit:
        raise BadAddress(NOT_ALLOWED, "images", f"{count} addresses", f"at most {limit}")
    found: dict[str, str] = {}
    left = context.settings.max_body_bytes
    for field, address in _addresses(wire):
        if address not in found:
            rules = Rules(
                public_only=options.api_forbid_local_requests, agent=options.api_useragent, max_bytes=max(left, 0)
            )
            async with context.fetches:
                data = await fetch(address, field, rules)
            left -= len(data)
            found[address] = await to_thread.run_sync(to_base64, data, limiter=context.workers)
    return _replaced(wire, found)


def _addresses(wire: Wire) -> Iterable[tuple[str, str]]:
    """Every address of a request with the name of its field."""
    for field in _FIELDS:
        value = getattr(wire, field, None)
        if isinstance(value, list):
            yield from ((f"{field}[{place}]", item) for place, item in enumerate(value) if is_address(item))
        elif is_address(value):
            yield field, str(value)
    if isinstance(wire, ExtrasBatch):
        named = ((f"imageList[{place}].data", entry.data) for place, entry in enumerate(wire.pictures))
        yield from ((field, data) for field, data in named if is_address(data))


def _replaced(wire: W, found: dict[str, str]) -> W:
    changes: dict[str, object] = {}
    for field in _FIELDS:
        value = getattr(wire, field, None)
        if isinstance(value, list):
            changes[field] = [found.get(item, item) if isinstance(item, str) else item for item in value]
        elif isinstance(value, str) and value in found:
            changes[field] = found[value]
    if isinstance(wire, ExtrasBatch):
        changes["pictures"] = [
            entry.model_copy(update={"data": found.get(entry.data, entry.data)}) for entry in wire.pictures
        ]
    return wire.model_copy(update=changes)


async def fetch(address: str, field: str, rules: Rules, resolve: Resolve = look_up) -> bytes:
    """The file at an address. Raises BadAddress, which blames `field`."""
    try:
        with anyio.fail_after(rules.limit_s):
            async with httpcore.AsyncConnectionPool(
                network_backend=GuardedNetwork(resolve, public_only=rules.public_only)
            ) as pool:
                return await _follow(pool, address, field, rules)
    except NotPublicError:
        raise BadAddress(NOT_PUBLIC, field, address, "a host on the public network") from None
    except (TimeoutError, httpcore.TimeoutException):
        raise BadAddress(NOT_A_PICTURE, field, address, f"an answer within {rules.limit_s:g} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError):
        raise BadAddress(NOT_A_PICTURE, field, address, "an address that can be reached") from None


async def _follow(pool: httpcore.AsyncConnectionPool, address: str, field: str, rules: Rules) -> bytes:
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), rules.wait_s)
    headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": rules.agent or "darkroom"}
    here = address
    for _ in range(rules.max_redirects + 1):
        url, host = _parse(here, field, address)
        sent = [(name.encode(), value.encode("ascii", "replace")) for name, value in {"Host": host, **headers}.items()]
        async with pool.stream("GET", url, headers=sent, extensions={"timeout": timeouts}) as answer:
            said = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
            if answer.status in _REDIRECTS and "location" in said:
                here = urljoin(here, said["location"])
                continue
            if answer.status != 200:
                raise BadAddress(NOT_A_PICTURE, field, address, f"a picture; the host answered {answer.status}")
            return await _read(answer, said, field, address, rules.max_bytes)
    raise BadAddress(NOT_A_PICTURE, field, address, f"at most {rules.max_redirects} redirects")


def _parse(here: str, field: str, address: str) -> tuple[httpcore.URL, str]:
    """The parts of an address, and what its host is to be called."""
    try:
        return parse_address(here)
    except NotAnAddressError as error:
        raise BadAddress(NOT_A_PICTURE, field, address, str(error)) from None


async def _read(answer: httpcore.Response, said: dict[str, str], field: str, address: str, max_bytes: int) -> bytes:
    """The body, while it is no longer than it may be. A compressed one could be anything inside, and is refused."""
    if not said.get("content-type", _TYPES[0]).lower().startswith(_TYPES):
        raise BadAddress(NOT_A_PICTURE, field, address, f"a picture; this is {said['content-type'][:80]}")
    if said.get("content-encoding", "identity") != "identity":
        raise BadAddress(NOT_A_PICTURE, field, address, "a file that is not compressed once more")
    announced = said.get("content-length", "0")
    too_long = BadAddress(NOT_A_PICTURE, field, address, f"at most {max_bytes} bytes")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_long
    data = bytearray()
    async for part in answer.aiter_stream():
        data += part
        if len(data) > max_bytes:
            raise too_long
    return bytes(data)
