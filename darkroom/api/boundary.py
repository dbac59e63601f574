"""The outermost layer of a request: measures it, and turns what nobody expected into an answer without a traceback."""

import asyncio
import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.api.answers import refuse
from darkroom.api.stopping import Stopping

log = logging.getLogger(__name__)

_BACK_AFTER_S = 10
"""A server that is started again answers after about that time."""


class Boundary:
    """ASGI middleware. Adds `X-Process-Time`; an exception that escapes becomes a 500 and an entry in the log, and a
    request that is dropped because the server stops gets a 503.
    """

    def __init__(self, app: ASGIApp, stopping: Stopping) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        started = False

        async def send_timed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Process-Time"] = str(round(time.perf_counter() - began, 4))
            await send(message)

        try:
            await self._app(scope, receive, send_timed)
        except asyncio.CancelledError:
            if started or not self._stopping.begun:
                raise
            # The server waits for nothing but this answer any more.
            log.warning("%s %s is dropped: the server stops", scope["method"], scope["path"])
            answer = refuse(503, "stopping", "the server stops before this is done", error="Stopping")
            answer.headers["Retry-After"] = str(_BACK_AFTER_S)
            await answer(scope, receive, send_timed)
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            answer = refuse(500, "internal", "", error=type(error).__name__, errors="unexpected error; the log has it")
            await answer(scope, receive, send_timed)
