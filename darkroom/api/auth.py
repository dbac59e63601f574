"""HTTP Basic passwords in front of the API. Knows nothing of what lies behind."""

import base64
import binascii
import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.api.answers import refuse
from darkroom.errors import Unauthorized

PROTECTED = ("/sdapi/v1/", "/generate", "/internal/", "/sd_extra_networks/")
OPEN = frozenset({"/internal/ping"})


class BasicAuth:
    """ASGI middleware that asks for a password before anything of a request's body is read.

    It is installed only where passwords are set: without them, an Authorization header is nobody's business.
    """

    def __init__(self, app: ASGIApp, credentials: Mapping[str, str]) -> None:
        self._app = app
        self._credentials = [(user.encode(), password.encode()) for user, password in credentials.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and _is_protected(scope["path"]):
            try:
                self._check(Headers(scope=scope).get("authorization", ""))
            except Unauthorized as error:
                answer = refuse(error.http_status, error.code, str(error))
                answer.headers["WWW-Authenticate"] = 'Basic realm="darkroom"'
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, header: str) -> None:
        scheme, _, packed = header.partition(" ")
        if scheme.lower() != "basic":
            raise Unauthorized("Not authenticated")
        try:
            user, colon, password = base64.b64decode(packed.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            raise Unauthorized("Invalid authentication credentials") from None
        if not colon:
            raise Unauthorized("Invalid authentication credentials")
        # Every entry is compared in full, so that time tells neither names nor passwords.
        matches = [
            secrets.compare_digest(user, known) & secrets.compare_digest(password, secret)
            for known, secret in self._credentials
        ]
        if not any(matches):
            raise Unauthorized("Incorrect username or password")


def _is_protected(path: str) -> bool:
    return path.startswith(PROTECTED) and path not in OPEN
