"""How long the body of a request may be. Knows nothing of what it says."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.api.auth import turn_away
from darkroom.errors import BodyTooLarge


class BodyLimit:
    """ASGI middleware that refuses a body that is, or turns out to be, too long."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _declared(scope) > self._max_bytes:
            await turn_away(BodyTooLarge(self._max_bytes), scope, receive, send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """Receives what was sent in pieces of no declared length, as far as it is not too much."""
        seen = 0

        async def receive_within_limit() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                error = BodyTooLarge(self._max_bytes)
                raise HTTPException(error.http_status, str(error))  # whoever reads a body lets this one through
            return message

        return receive_within_limit


def _declared(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0
