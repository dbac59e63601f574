"""The HTTP server: uvicorn, which tells the application when it stops, and then waits for its connections; and which
lets go of clients that take nothing of what they asked for.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = logging.getLogger(__name__)

LOOKS: Final = 4
"""How often a connection is looked at within the time that its client has."""

LEAST_BYTES: Final = 16_384
"""What a client has to take in that time, if not everything."""

_BYTES_ACKED: Final = struct.Struct("=120xQ")
"""`tcpi_bytes_acked` in Linux' `struct tcp_info`: how many bytes the other side has confirmed."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""Has the kernel forget at once what it was to send."""


class Server(uvicorn.Server):
    """Calls `stopping` once, in its event loop, before it waits for the connections that are left."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does."""
        self._stopping()
        await super().shutdown(sockets)


def impatient(limit_s: float) -> type[asyncio.Protocol]:
    """The protocol of a connection, uvicorn's, which closes it where the client takes next to nothing for so many
    seconds.

    It holds for whatever the connection carries: an answer, a stream of events, a WebSocket.
    """

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # a class that depends on what is installed
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            Watch(transport, limit_s).begin()

    return Impatient


class Watch:
    """Looks at a connection now and then, until it is gone.

    uvicorn waits for as long as it takes until a client has read its answer, and the answer stays in memory.
    """

    def __init__(self, transport: asyncio.Transport, limit_s: float) -> None:
        self._transport = transport
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._taken, self._since_s = 0, self._loop.time()

    def begin(self) -> None:
        """Look from now on."""
        self._loop.call_later(self._limit_s / LOOKS, self._look)

    def _look(self) -> None:
        left, now_s = self._transport.get_write_buffer_size(), self._loop.time()
        if not left and self._transport.is_closing():
            return
        taken = _taken(self._transport)
        if not left or taken >= self._taken + LEAST_BYTES:
            self._taken, self._since_s = taken, now_s
        elif now_s - self._since_s >= self._limit_s:
            log.warning("%s takes nothing of %d bytes: let go", _client(self._transport), left)
            _socket(self._transport).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()
            return
        self.begin()


def _taken(transport: asyncio.Transport) -> int:
    """How many bytes the client's side has confirmed since the connection was made."""
    found = _socket(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    return int(_BYTES_ACKED.unpack(found)[0])


def _socket(transport: asyncio.Transport) -> socket.socket:
    connection: socket.socket = transport.get_extra_info("socket")
    return connection


def _client(transport: asyncio.Transport) -> str:
    address: Any = transport.get_extra_info("peername")
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "a client"
