"""As much of Discord as a bot of slash commands and buttons speaks to: the gateway, and the REST routes behind it.

Knows nothing of any bot. A test says what people do (`command`, `press`) and reads what they then see (`Answer`).
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import BodyPartReader, WSMsgType, web

Json = dict[str, Any]

APPLICATION, CHANNEL = "1000", "2000"
DISPATCH, HEARTBEAT, IDENTIFY, HELLO, HEARTBEAT_ACK = 0, 1, 2, 10, 11
COMMAND, COMPONENT = 2, 3
MESSAGE, THINKING, SILENT = 4, 5, 6
TYPES = {bool: 5, str: 3, int: 4, float: 10}
ATTACHMENT = 11
EPHEMERAL = 1 << 6

WAIT_S = 30.0


@dataclass(slots=True)
class Answer:
    """What a person sees after a command or a press: every state of the message, the last one last."""

    states: list[Json] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        return str(self.states[-1].get("content") or "") if self.states else ""

    @property
    def buttons(self) -> dict[str, str]:
        """Id by label."""
        rows = self.states[-1].get("components") or []
        return {button["label"]: button["custom_id"] for row in rows for button in row["components"]}

    async def until(self, holds: Callable[["Answer"], bool]) -> "Answer":
        """Wait for a state of which something holds."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not (self.states and holds(self)):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"not so after {WAIT_S:.0f} s: {self.states[-3:]}") from None
        return self

    def add(self, state: Json) -> None:
        self.states.append(state)
        self.changed.set()


class FakeDiscord:
    """One gateway with one bot on it."""

    def __init__(self, token: str) -> None:
        self.commands: dict[str, Json] = {}
        self.refused = 0
        self.port = 0
        self._token = token
        self._numbers = count(time.time_ns() >> 10)  # as at Discord no id comes twice
        self._answers: dict[str, Answer] = {}
        self._attachments: dict[str, tuple[bytes, str]] = {}
        self._socket: web.WebSocketResponse | None = None
        self._ready = asyncio.Event()
        self._sequence = count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeDiscord"]:
        app = web.Application(client_max_size=30_000_000)
        app.add_routes(
            [
                web.get("/gateway/", self._gateway),
                web.get("/api/users/@me", self._me),
                web.get("/api/oauth2/applications/@me", self._application),
                web.put("/api/applications/{application}/commands", self._put_commands),
                web.post("/api/interactions/{id}/{token}/callback", self._respond),
                web.patch("/api/webhooks/{application}/{token}/messages/@original", self._edit),
                web.post("/api/webhooks/{application}/{token}", self._follow_up),
                web.get("/cdn/{name}", self._cdn),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def until_ready(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._ready.wait()

    async def command(self, name: str, person: int = 7, **options: str | float | Json) -> Answer:
        """A person gives a command; what `attachment` made is an attachment."""
        resolved = {value["id"]: value for value in options.values() if isinstance(value, dict)}
        given = [
            {"name": key, "type": ATTACHMENT, "value": value["id"]}
            if isinstance(value, dict)
            else {"name": key, "type": TYPES[type(value)], "value": value}
            for key, value in options.items()
        ]
        data = {"id": self.commands[name]["id"], "name": name, "type": 1, "options": given}
        return await self._interact(COMMAND, person, data | {"resolved": {"attachments": resolved}})

    async def press(self, custom_id: str, person: int = 7) -> Answer:
        """A person presses a button."""
        pressed = {"custom_id": custom_id, "component_type": 2}
        row = {"type": 1, "components": [{"type": 2, "style": 2, "custom_id": custom_id, "label": "pressed"}]}
        return await self._interact(COMPONENT, person, pressed, message=self._message("", [row]))

    def attachment(self, data: bytes, content_type: str, size: tuple[int, int] | None) -> Json:
        """A file that a person adds to a command."""
        number = str(next(self._numbers))
        self._attachments[number] = (data, content_type)
        url = f"{self.url}/cdn/{number}"
        sides = {"width": size[0], "height": size[1]} if size else {}
        named = {"id": number, "filename": "mine", "content_type": content_type, "size": len(data)}
        return named | {"url": url, "proxy_url": url} | sides

    async def _interact(self, kind: int, person: int, data: Json, **more: Json) -> Answer:
        number = str(next(self._numbers))
        answer = self._answers[f"token-{number}"] = Answer()
        user = {"id": str(person), "username": f"person{person}", "discriminator": "0", "avatar": None}
        event = {
            "id": number,
            "application_id": APPLICATION,
            "type": kind,
            "data": data,
            "token": f"token-{number}",
            "version": 1,
            "user": user,
            "channel": {"id": CHANNEL, "type": 1, "recipients": [user]},
            "channel_id": CHANNEL,
            "attachment_size_limit": 10_000_000,
            "entitlements": [],
            "authorizing_integration_owners": {},
        }
        assert self._socket is not None, "no bot is connected"
        await self._dispatch("INTERACTION_CREATE", event | more)
        return answer

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        self._socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": HELLO, "d": {"heartbeat_interval": 45_000}, "s": None, "t": None})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            said = json.loads(message.data)
            if said["op"] == HEARTBEAT:
                await socket.send_json({"op": HEARTBEAT_ACK})
            elif said["op"] == IDENTIFY:
                assert said["d"]["token"] == self._token
                await self._dispatch("READY", self._readiness())
                self._ready.set()
        return socket

    async def _dispatch(self, name: str, data: Json) -> None:
        assert self._socket is not None
        await self._socket.send_json({"op": DISPATCH, "t": name, "s": next(self._sequence), "d": data})

    def _readiness(self) -> Json:
        return {
            "v": 10,
            "user": _bot(),
            "guilds": [],
            "session_id": "session",
            "resume_gateway_url": f"{self.url.replace('http', 'ws')}/gateway/",
            "application": {"id": APPLICATION, "flags": 0},
        }

    async def _me(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bot {self._token}":
            self.refused += 1
            return _json({"message": "401: Unauthorized", "code": 0}, status=401)
        return _json(_bot())

    async def _application(self, _: web.Request) -> web.Response:
        plain = {"name": "bot", "icon": None, "description": "", "bot_public": True, "bot_require_code_grant": False}
        keyed = {"id": APPLICATION, "verify_key": "", "owner": _bot(), "flags": 0, "install_params": None}
        return _json(plain | keyed)

    async def _put_commands(self, request: web.Request) -> web.Response:
        self.commands = {
            entry["name"]: {"id": str(next(self._numbers)), "application_id": APPLICATION, "version": "1", **entry}
            for entry in await request.json()
        }
        return _json(list(self.commands.values()))

    async def _respond(self, request: web.Request) -> web.Response:
        said = await request.json()
        answer = self._answers[request.match_info["token"]]
        loading = said["type"] == THINKING
        if said["type"] != SILENT:
            answer.add(said.get("data") or {"content": ""})
        interaction = {"id": request.match_info["id"], "type": 2, "response_message_loading": loading}
        return _json({"interaction": interaction})

    async def _edit(self, request: web.Request) -> web.Response:
        answer = self._answers[request.match_info["token"]]
        state = await _read(request, answer.files)
        answer.add({**(answer.states[-1] if answer.states else {}), **state})
        return _json(self._message(answer.text, answer.states[-1].get("components") or []))

    async def _follow_up(self, request: web.Request) -> web.Response:
        answer = self._answers[request.match_info["token"]]
        answer.add(await _read(request, answer.files))
        return _json(self._message(answer.text, []))

    async def _cdn(self, request: web.Request) -> web.Response:
        data, content_type = self._attachments[request.match_info["name"]]
        return web.Response(body=data, content_type=content_type)

    def _message(self, content: str, components: list[Json]) -> Json:
        return {
            "id": str(next(self._numbers)),
            "channel_id": CHANNEL,
            "author": _bot(),
            "content": content,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "pinned": False,
            "type": 0,
            "components": components,
        }


def _bot() -> Json:
    return {"id": APPLICATION, "username": "bot", "discriminator": "0", "avatar": None, "bot": True}


def _json(data: Any, status: int = 200) -> web.Response:
    """As Discord says it: without a charset, which its clients do not expect."""
    return web.Response(body=json.dumps(data).encode(), content_type="application/json", status=status)


async def _read(request: web.Request, files: dict[str, bytes]) -> Json:
    """The JSON of a message; its files are put into `files`."""
    if not request.content_type.startswith("multipart/"):
        found: Json = await request.json()
        return found
    state: Mapping[str, Any] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        if part.name == "payload_json":
            state = json.loads(await part.text())
        else:
            files[part.filename or ""] = bytes(await part.read())
    return dict(state)
