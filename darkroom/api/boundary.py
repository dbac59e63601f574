"""The outermost layer of a request: measures it, and turns what nobody expected into an answer without a traceback."""

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.api.answers import refuse

log = logging.getLogger(__name__)


class Boundary:
    """ASGI middleware. Adds `X-Process-Time`; an exception that escapes becomes a 500 and an entry in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            answer = refuse(500, "internal", "", error=type(error).__name__, errors="unexpected error; the log has it")
            await answer(scope, receive, send_timed)
