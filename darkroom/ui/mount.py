"""Puts the pages on the server: `/ui/`, their files under `/ui-assets/`, and `/` that leads there.

Imports no Gradio before the pages are built. That happens once the server has nothing else to do, or when somebody
opens a page before: who does waits for it, and the API waits for nothing.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http.cookies import CookieError, SimpleCookie
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.api.addresses import route_of
from darkroom.settings import Settings
from darkroom.ui.files import Files
from darkroom.ui.words import ENGLISH, Words, choose_language, languages, read_words

PATH = "/ui"
ASSETS_PATH = "/ui-assets"
ASSETS = Path(__file__).parent / "assets"
LANGUAGE_COOKIE = "darkroom-language"

APPLICATION = "darkroom.application"
"""The key of a connection's scope under which the pages find the application that they belong to."""

_DARKEN = '<script>document.body.classList.toggle("dark", document.documentElement.dataset.theme === "dark")</script>'
"""Gradio's own sign for dark colours, set before anything is painted."""

_GRADIOS_FILES = "/assets/"
"""Where the scripts and styles of Gradio lie, whose names hold fingerprints."""

_OPEN = frozenset({"/", "/config", "/theme.css", "/robots.txt"})
_OPEN_BELOW = ("/static/", *(f"/gradio_api/{name}" for name in (
    "app_id", "cancel", "heartbeat", "info", "login_check", "queue/", "reset", "run/", "startup-events", "theme.css",
)))  # fmt: skip
"""What of Gradio's own routes these pages need. Others take files in, or give them out; nothing here has files."""

_LOOK_S = 0.1
_IDLE_S = 1.0


def mount(app: FastAPI, settings: Settings, is_idle: Callable[[], bool]) -> None:
    """Add the pages to an application whose layers are already there. `is_idle`: whether it has nothing to do."""
    door = Door(app, settings, is_idle)
    app.add_route("/", lead_in, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(ASSETS_PATH, Files(ASSETS, _behind_the_fingerprint))
    app.mount(PATH, door)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[Any]:
        async with inner(application) as state, door.open():
            yield state

    app.router.lifespan_context = lifespan


async def lead_in(request: Request) -> Response:
    """The page that somebody sees who knows nothing but the server's name."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{request.scope.get('root_path', '')}{PATH}/{query}", 307)


def _behind_the_fingerprint(route: str) -> str:
    return route.lstrip("/").partition("/")[2]


def fingerprint() -> str:
    """Ten digits that stand for all files of the pages."""
    digest = hashlib.sha256()
    for path in sorted(ASSETS.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(ASSETS)).encode() + path.read_bytes())
    return digest.hexdigest()[:10]


class Door:
    """ASGI application that serves the pages of each language once they are built."""

    def __init__(self, app: FastAPI, settings: Settings, is_idle: Callable[[], bool]) -> None:
        self._application = app
        self._settings = settings
        self._is_idle = is_idle
        self._known = languages()
        self._building: dict[str, asyncio.Task[ASGIApp]] = {}
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While the server runs."""
        async with self._stack:
            first = asyncio.create_task(self._prepare())
            try:
                yield
            finally:
                first.cancel()
                for task in self._building.values():
                    task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # the pages listen to events of plain HTTP
            return
        path = route_of(scope)
        first = path.strip("/").partition("/")[0]
        language = first if first in self._known and first != ENGLISH else ENGLISH
        if path == "/":
            chosen = self._language_of(scope)
            if chosen != ENGLISH or "lang" in QueryParams(scope["query_string"]):
                await self._lead(scope, receive, send, chosen)
                return
        pages = await self._pages(language)
        root = scope.get("root_path", "") + ("" if language == ENGLISH else f"/{language}")
        inner: Scope = {**scope, "root_path": root, APPLICATION: self._application}
        await pages(inner, receive, send)

    def _language_of(self, scope: Scope) -> str:
        query, headers = QueryParams(scope["query_string"]), Headers(scope=scope)
        wanted = query.get("lang") or _cookie(headers) or headers.get("accept-language", "")
        return choose_language(wanted, self._known)

    async def _lead(self, scope: Scope, receive: Receive, send: Send, language: str) -> None:
        """Send a browser to the pages of a language, which it is to remember if it was asked for."""
        query = QueryParams(scope["query_string"])
        rest = urlencode([(name, value) for name, value in query.multi_items() if name != "lang"])
        inner = "" if language == ENGLISH else f"{language}/"
        answer = RedirectResponse(f"{scope.get('root_path', '')}/{inner}{'?' + rest if rest else ''}", 307)
        if "lang" in query:
            answer.set_cookie(LANGUAGE_COOKIE, language, max_age=31_536_000, samesite="lax")
        await answer(scope, receive, send)

    async def _prepare(self) -> None:
        """Build the pages before somebody asks for them, once the server has had nothing to do for a moment."""
        idle_s = 0.0
        while idle_s < _IDLE_S:
            await asyncio.sleep(_LOOK_S)
            idle_s = idle_s + _LOOK_S if self._is_idle() else 0.0
        await self._pages(ENGLISH)

    async def _pages(self, language: str) -> ASGIApp:
        """The pages of a language, built by whoever needs them first."""
        task = self._building.get(language)
        if task is None:
            task = self._building[language] = asyncio.create_task(self._build(language))
        return await asyncio.shield(task)

    async def _build(self, language: str) -> ASGIApp:
        words = read_words(language)
        path = PATH if language == ENGLISH else f"{PATH}/{language}"
        host = await asyncio.to_thread(_create, self._settings, words, path)
        await self._stack.enter_async_context(host.router.lifespan_context(host))
        inner = host.routes[-1]
        assert isinstance(inner, Mount), "the pages are mounted last"
        return Page(inner.app, words)


class Page:
    """ASGI application that puts a head of our own into the page of an inner one: styles and scripts before the first
    paint.
    """

    def __init__(self, app: ASGIApp, words: Words) -> None:
        self._app = app
        self._words = words
        self._path = PATH if words.language == ENGLISH else f"{PATH}/{words.language}"
        self._files = Files(_gradio_folder() / "templates" / "frontend", lambda route: route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        route = route_of(scope)
        if route.startswith(_GRADIOS_FILES):
            await self._files(scope, receive, send)
            return
        if route not in _OPEN and not route.startswith(_OPEN_BELOW):
            await PlainTextResponse("Not Found", 404)(scope, receive, send)
            return
        if route != "/" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: list[Message] = []
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
            else:
                body.extend(message.get("body", b""))

        await self._app({**scope, "headers": plain}, receive, keep)
        text = self._changed(body.decode(), scope)
        kept = [(name, value) for name, value in start[0]["headers"] if name != b"content-length"]
        kept += [(b"content-length", str(len(text)).encode()), (b"cache-control", b"no-cache")]
        await send({**start[0], "headers": kept})
        await send({"type": "http.response.body", "body": text})

    def _changed(self, page: str, scope: Scope) -> bytes:
        """The page with its language, and with our head before Gradio's own."""
        base = scope["root_path"].removesuffix(self._path)
        files = f"{base}{ASSETS_PATH}/{fingerprint()}"
        setup = json.dumps({"base": base, "language": self._words.language, "words": dict(self._words.table)})
        escaped = setup.replace("<", "\\u003c")
        head = (
            f'<link rel="icon" href="{files}/darkroom.svg" type="image/svg+xml">'
            f'<link rel="stylesheet" href="{files}/darkroom.css">'
            f'<link rel="stylesheet" href="{files}/library.css">'
            f'<link rel="stylesheet" href="{files}/pictures.css">'
            f'<script type="application/json" id="darkroom-setup">{escaped}</script>'
            f'<script src="{files}/theme.js"></script>'
            f'<script type="module" src="{files}/darkroom.js"></script>'
        )
        page = page.replace('<script type="module"', f'{head}<script type="module"', 1)
        page = re.sub("<body[^>]*>", r"\g<0>" + _DARKEN, page, count=1)
        page = page.replace('lang="en"', f'lang="{self._words.language}"', 1)
        return page.replace('<link rel="manifest" href="/manifest.json" />', "", 1).encode()


def _create(settings: Settings, words: Words, path: str) -> FastAPI:
    """Imports Gradio, for which it takes its time."""
    from darkroom.ui.app import create_pages

    return create_pages(settings, words, path)


def _gradio_folder() -> Path:
    found = find_spec("gradio")
    folders = found.submodule_search_locations if found else None
    assert folders, "Gradio is installed"
    return Path(folders[0])


def _cookie(headers: Headers) -> str:
    """The language that this browser was asked to remember."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(LANGUAGE_COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
