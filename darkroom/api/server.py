"""The HTTP server: uvicorn, which tells the application when it stops, and then waits for its connections."""

import socket
from collections.abc import Callable

import uvicorn


class Server(uvicorn.Server):
    """Calls `stopping` once, in its event loop, before it waits for the connections that are left."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does."""
        self._stopping()
        await super().shutdown(sockets)
