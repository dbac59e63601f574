"""Serves the files of the pages: packed once, kept in memory, and kept by browsers for good.

The addresses hold a fingerprint of what lies under them, so that nothing ever has to be asked for again.
"""

import gzip
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from darkroom.api.addresses import route_of

KEPT_FOR_GOOD = "public, max-age=31536000, immutable"

_PACKED = frozenset({".css", ".html", ".js", ".json", ".map", ".mjs", ".svg", ".txt"})
_SMALL = 400
"""Bytes that are not worth packing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file as it is sent: `packed` is it in gzip, None where that is no smaller. `seen` tells whether it changed."""

    seen: tuple[int, int]
    media_type: str
    plain: bytes
    packed: bytes | None


class Files:
    """ASGI application that serves what lies in a folder. `name_of` makes a request's route the name of a file."""

    def __init__(self, folder: Path, name_of: Callable[[str], str]) -> None:
        self._folder = folder.resolve()
        self._name_of = name_of
        self._stored: dict[Path, Stored] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await (await self._answer(scope))(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse("Method Not Allowed", 405)
        path = (self._folder / self._name_of(route_of(scope)).lstrip("/")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            return PlainTextResponse("Not Found", 404)
        stored = self._stored.get(path)
        if stored is None or stored.seen != _seen(path):
            stored = self._stored[path] = await to_thread.run_sync(_store, path)
        headers = {"Cache-Control": KEPT_FOR_GOOD, "Vary": "Accept-Encoding"}
        if stored.packed is None or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            return Response(stored.plain, media_type=stored.media_type, headers=headers)
        return Response(stored.packed, media_type=stored.media_type, headers={**headers, "Content-Encoding": "gzip"})


def _store(path: Path) -> Stored:
    seen, plain = _seen(path), path.read_bytes()
    packed = gzip.compress(plain, 6) if path.suffix in _PACKED and len(plain) >= _SMALL else None
    media_type = "text/javascript" if path.suffix in {".js", ".mjs"} else mimetypes.guess_type(path.name)[0]
    return Stored(seen=seen, media_type=media_type or "application/octet-stream", plain=plain, packed=packed)


def _seen(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
