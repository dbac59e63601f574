"""Which web pages may use this server. Knows nothing of passwords or of what lies behind.

A browser sends requests to a server on its own machine, or in its own network, for any page that it shows. Two things
keep strangers' pages out:

- A request that changes something, with the Origin of another site, is refused unless that origin is allowed (CORS).
  Other requests are served: without CORS headers the page cannot read the answer. Programs send no Origin and pass.
- Without passwords, a request under a name that somebody else could own is refused: by making such a name mean this
  machine (DNS rebinding), a page would become "the same site". Addresses pass, and names that nobody can register.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.api.auth import turn_away
from darkroom.errors import DarkroomError, Forbidden
from darkroom.guarded_network import is_numeric
from darkroom.settings import Settings

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}

_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa", ".lan", ".test")
"""Ends of names that the public DNS does not have. RFC 6761, 6762 and 8375; `internal` is reserved by ICANN (2024)."""


class OriginCheck:
    """ASGI middleware that refuses requests of web pages that may not use this server."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._origins = frozenset(settings.origins)
        self._pattern = re.compile(settings.cors_allow_origins_regex) if settings.cors_allow_origins_regex else None
        self._names = (*settings.host_names, settings.host.lower())
        self._checks_host = bool(settings.host_names) or not settings.is_guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in {"http", "websocket"}:
            try:
                self._check(scope)
            except DarkroomError as error:
                await turn_away(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._checks_host and host and not is_own_name(host, self._names):
            raise Forbidden(
                f"this server does not go by the name {host[:80]!r}; its operator can add it: --allowed-hosts"
            )
        if origin is None or scope.get("method") in _SAFE:
            return
        if not (self._allows(origin) or _is_same_site(origin, host, headers)):
            raise Forbidden(f"pages of {origin[:80]!r} may not use this server; its operator can let them:"
                            " --cors-allow-origins")  # fmt: skip

    def _allows(self, origin: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        return self._pattern is not None and self._pattern.fullmatch(origin) is not None


def is_own_name(host: str, names: Sequence[str]) -> bool:
    """Whether the value of a Host header is an address, one of the names, or a name that nobody can register."""
    name = _split(host)[0]
    if name is None:
        return False
    name = name.rstrip(".")
    if any(fnmatchcase(name, known) for known in names):
        return True
    return is_numeric(name) or "." not in name or name.endswith(_PRIVATE)


def _is_same_site(origin: str, host: str, headers: Headers) -> bool:
    """Whether a page is this server's own. Browsers let no page write `Sec-Fetch-Site`."""
    if headers.get("sec-fetch-site") == "same-origin":
        return True
    scheme, _, rest = origin.partition("://")
    name, port = _split(rest)
    known_name, known_port = _split(host)
    default = _PORTS.get(scheme)
    return name is not None and (name, port or default) == (known_name, known_port or default)


def _split(authority: str) -> tuple[str | None, Any]:
    """The name in small letters, and the port; (None, None) for what is neither."""
    if any(mark in authority for mark in "/?#@\\"):
        return None, None
    try:
        parts = urlsplit(f"//{authority}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    return name, port
