"""Logins of browsers: a signed cookie that says who somebody is and until when. Nothing is kept of one on the server.

The signature covers what the user's password is known by, so that a session ends when that user is removed or gets
another password. Knows no passwords and no routes.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from darkroom.errors import Forbidden

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGES = frozenset({"same-origin", "none"})

_LONGEST = 4096
"""Characters of a token; browsers keep no longer cookies."""

Marks = Callable[[str], Iterable[bytes]]
"""What a user's passwords are known by; nothing for who is no user (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Issues tokens and recognises them. `secret` is shared by servers that stand for one another."""

    secret: bytes
    valid_s: float
    clock: Callable[[], float] = time.time

    @property
    def cookie(self) -> str:
        """The cookie's name. It tells servers apart: browsers send a cookie to every port of a host."""
        return f"darkroom-{self._sign('name')[:8]}"

    def issue(self, user: str, mark: bytes) -> str:
        """A token for somebody whose password, known by `mark`, was right."""
        head = f"{_pack(user.encode())}.{int(self.clock() + self.valid_s)}"
        return f"{head}.{self._seal(head, mark)}"

    def find_user(self, token: str, marks: Marks) -> str | None:
        """Whose a token is; None if it was not issued here, has expired, or is for a password of the past."""
        head, _, seal = token.rpartition(".")
        name, _, expires = head.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(token) <= _LONGEST and int(expires) > self.clock()):
            return None
        try:
            user = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
        except (binascii.Error, ValueError):
            return None
        given = seal.encode("utf-8", "replace")
        matches = [hmac.compare_digest(self._seal(head, mark).encode(), given) for mark in marks(user)]
        return user if any(matches) else None

    def set_cookie(self, answer: Response, scope: Mapping[str, Any], token: str) -> None:
        """Have the browser keep a token, or drop the one that it has if this one is empty.

        Lax: no page of another site can use it to change anything. Scripts cannot read it.
        """
        answer.set_cookie(
            self.cookie,
            token,
            max_age=int(self.valid_s) if token else 0,
            path=scope.get("root_path", "") or "/",
            secure=scope.get("scheme") in {"https", "wss"},
            httponly=True,
            samesite="lax",
        )

    def token_of(self, headers: Headers) -> str:
        """The token that a request shows; empty without one."""
        sent = cookie_parser("; ".join(headers.getlist("cookie")))
        return sent.get(self.cookie, "")

    def _seal(self, head: str, mark: bytes) -> str:
        return self._sign(f"session.{head}.{hashlib.sha256(mark).hexdigest()}")

    def _sign(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()


def check_own_page(scope: Mapping[str, Any], headers: Headers) -> None:
    """Refuse what changes something and shows a cookie alone, unless it says which page it comes from. Raises
    Forbidden.

    A browser sends the cookie for whichever page makes the request: Lax keeps other sites out, but neighbours on the
    same host or domain are the same site. Browsers name the page in `Origin`, which has been looked at by now
    (`origins`), or in `Sec-Fetch-Site`; no page can write or remove either. What names none may be a page in an old
    browser that posts a form. Opening a WebSocket counts as changing something: its answers can be read.
    """
    if scope["type"] == "http" and scope["method"] in _SAFE:
        return
    if "origin" not in headers and headers.get("sec-fetch-site") not in _OWN_PAGES:
        raise Forbidden(
            "a request with a cookie and nothing else must say which page makes it (Origin or Sec-Fetch-Site);"
            " programs send Authorization instead"
        )


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
