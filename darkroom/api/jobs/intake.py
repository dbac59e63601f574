"""The layer in front of every route that does work: it gives each request an id, answers whoever does not want to wait,
and keeps what came of the others.

    Prefer: respond-async, or ?async=true     202 with the id; the request is served later, whatever happens meanwhile
    Idempotency-Key                           the same request again gets the first one's job
    ?response=url                             addresses in the place of pictures
    ?webhook=URL, or X-Darkroom-Webhook       a call when the job has ended
    X-Darkroom-Priority, or ?priority=        where it stands among those that wait
    Accept: image/*                           the first picture itself
"""

import asyncio
import logging
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.allowances import LOWEST, Allowance
from darkroom.api.addresses import route_of
from darkroom.api.answers import answer_error, refuse
from darkroom.api.auth import turn_away
from darkroom.api.jobs.attempt import SCOPE, Attempt
from darkroom.api.jobs.auditing import ended_entry, is_audited
from darkroom.api.jobs.desk import Desk, fingerprint, rebuilt
from darkroom.api.jobs.documents import accepted
from darkroom.api.jobs.keeping import media_type
from darkroom.api.jobs.promising import promise
from darkroom.api.jobs.unpacking import unpack
from darkroom.api.jobs.webhooks import read_hook
from darkroom.api.limits import Limits
from darkroom.api.owners import PRIORITY, allowance_of, owner_of
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, while_connected
from darkroom.errors import BadRequest, DarkroomError, LimitExceeded
from darkroom.history.ledger import Answered, Asked, Hook, Record, new_id
from darkroom.logs import about
from darkroom.settings import Settings

log = logging.getLogger(__name__)

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "/sdapi/v1/txt2img": "txt2img",
        "/sdapi/v1/img2img": "img2img",
        "/sdapi/v1/extra-single-image": "extras",
        "/sdapi/v1/extra-batch-images": "extras",
        "/sdapi/v1/interrogate": "interrogate",
        "/models/merge": "merge",
        "/generate/": "generate",
        "/v1/images/generations": "generations",
        "/v1/images/edits": "edits",
    }
)
"""The routes that do work, and what their jobs are called."""

MOST_UNKEPT = 64
"""Answers that wait in memory for their pictures to be kept. There are more only where disk or database stand still."""

_KEY_CHARS = 200
_FOLLOWED = re.compile(r"/jobs/([0-9a-f]{1,32})(/|$)")
_KEPT_HEADERS = ("content-type", "x-seed", "x-darkroom-ignored", "x-darkroom-warnings")
_OWN_PARAMETERS = ("async", "response", "webhook", "webhook_events", "priority")
_WHOLE = re.compile(r"[+-]?\d{1,6}")


class Intake:
    """ASGI middleware, the innermost: behind it are the routes alone."""

    def __init__(self, app: ASGIApp, desk: Desk, limits: Limits) -> None:
        self._app = app
        self._desk = desk
        self._limits = limits
        self._endings: set[asyncio.Task[None]] = set()
        desk.serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = KINDS.get(route_of(scope)) if scope["type"] == "http" and scope["method"] == "POST" else None
        if kind is None:
            with about(_followed(scope)):
                await self._app(scope, receive, send)
            return
        owner, allowance = owner_of(scope), allowance_of(scope)
        try:
            wish = read_wish(scope, self._desk.settings)
            await self._limits.take_turn(owner, allowance)
        except DarkroomError as error:
            await turn_away(error, scope, receive, send)
            return
        attempt = Attempt(
            id=new_id(), kind=kind, owner=owner, allowance=allowance, priority=wish.priority,
            deferred=wish.deferred or bool(wish.key),
        )  # fmt: skip
        scope = {**scope, SCOPE: attempt, PRIORITY: wish.priority, "query_string": wish.query.encode()}
        with about(attempt.id):
            if attempt.deferred:
                await self._defer(attempt, wish, scope, receive, send)
            else:
                await self._attend(attempt, wish, scope, receive, send)

    async def _defer(self, attempt: Attempt, wish: "Wish", scope: Scope, receive: Receive, send: Send) -> None:
        """Have the request looked over by its route, and promise it; or pass on what the route says against it."""
        body = Body(receive)
        said = Said()
        await self._app(scope, body.receive, said.send)
        if not attempt.admitted:
            await said.pass_on(send)
            return
        asked = replace(asked_of(attempt, wish, scope, body.content), traceparent=self._desk.traces.carried())
        answer: Response
        try:
            record, new = await promise(self._desk, self._limits, attempt, asked, wish.key, wish.hook)
            if not new and record.fingerprint != fingerprint(asked):
                raise BadRequest("Idempotency-Key", wish.key, "it was given to another request already")
            if wish.deferred:
                answer = JSONResponse(accepted(record), 202, headers(record.id, scope))
            else:
                answer = await self._await(record, wish, scope, receive)
        except DarkroomError as error:
            answer = answer_error(error)
        with about(answer.headers.get("X-Job-Id", attempt.id)):  # a retry is about the first one's job
            await answer(scope, receive, send)

    async def _await(self, record: Record, wish: "Wish", scope: Scope, receive: Receive) -> Response:
        """The answer to whoever waits for a job that was promised. Who goes away gets it by asking again."""
        try:
            ended = await while_connected(Request(scope, receive), self._desk.wait_for(record.id))
        except ClientGoneError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        body, answered = await self._desk.do(
            lambda books: rebuilt(books, record.id, root_of(scope), self._desk.settings, linked=wish.by_address)
        )
        if answered is None:
            return refuse(409, ended.state, ended.error or f"the job was {ended.state}")
        return Response(body, answered.status, {**answered.headers, "X-Job-Id": record.id})

    async def _attend(self, attempt: Attempt, wish: "Wish", scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request while its client waits, and keep what came of it."""
        body = Body(receive)
        held = wish.by_address or wish.bare
        said = Said(None if held else send, job_id=attempt.id)
        began = attempt.began
        self._desk.present[attempt.id] = attempt
        try:
            async with self._limits.attended(attempt):
                await self._app(scope, body.receive, said.send)
        except DarkroomError as error:
            await turn_away(error, scope, receive, send)
            return
        finally:
            self._desk.present.pop(attempt.id, None)
            if attempt.admitted:
                self._desk.later(self._settle(attempt, said.status))
        worked = attempt.admitted and said.status == 200
        if held and not worked:
            await said.pass_on(send)
        elif wish.bare:
            await self._answer_barely(attempt, said, scope, receive, send)
        elif wish.by_address:
            await self._answer_by_address(attempt, wish, scope, body, said, began, receive, send)
        if worked and not wish.by_address and self._desk.settings.history:
            if len(self._endings) < MOST_UNKEPT:
                self._later(self._keep(attempt, asked_of(attempt, wish, scope, body.content), said, began))
            else:
                log.error("job %s is not kept: %d others wait to be", attempt.id, len(self._endings))

    async def _answer_barely(self, attempt: Attempt, said: "Said", scope: Scope, receive: Receive, send: Send) -> None:
        answered = said.answered
        pictures = unpack(answered.headers.get("content-type", ""), answered.body, answered.headers).pictures
        if not pictures:
            await said.pass_on(send)
            return
        kept = {name: value for name, value in answered.headers.items() if name != "content-type"}
        seed = {} if pictures[0].seed is None else {"X-Seed": str(pictures[0].seed)}
        answer = Response(
            pictures[0].data, media_type=media_type(pictures[0].data), headers={**kept, **seed, "X-Job-Id": attempt.id}
        )
        await answer(scope, receive, send)

    async def _answer_by_address(
        self, attempt: Attempt, wish: "Wish", scope: Scope, body: "Body", said: "Said", began: float,
        receive: Receive, send: Send,
    ) -> None:  # fmt: skip
        asked = asked_of(attempt, wish, scope, body.content)
        try:
            linked = await self._desk.remember_linked(attempt, asked, said.answered, began, root_of(scope))
        except DarkroomError as error:
            await answer_error(error)(scope, receive, send)
            return
        kept = {name: value for name, value in said.answered.headers.items() if name != "content-type"}
        await Response(linked, media_type="application/json", headers={**kept, "X-Job-Id": attempt.id})(
            scope, receive, send
        )

    async def _settle(self, attempt: Attempt, status: int) -> None:
        """Note how a request ended that somebody waited for. What failed here is not counted."""
        try:
            if status >= 400 and status != CLIENT_CLOSED_REQUEST:
                await self._limits.refund(attempt)
            if is_audited(attempt, self._desk.settings):
                await self._desk.audit(ended_entry(attempt, status))
        except DarkroomError as error:
            log.error("job %s of %s is not noted: %s", attempt.id, attempt.owner, error)

    async def _keep(self, attempt: Attempt, asked: Asked, said: "Said", began: float) -> None:
        try:
            await self._desk.remember(attempt, asked, said.answered, began)
        except DarkroomError as error:
            log.error("job %s is not kept: %s", attempt.id, error)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._desk.later(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a client wants to be answered. `query` is the rest of the address' parameters."""

    deferred: bool
    by_address: bool
    bare: bool
    key: str | None
    query: str
    hook: Hook | None
    priority: int


def read_wish(scope: Scope, settings: Settings) -> Wish:
    """Read the headers and parameters that are not the route's. Raises BadRequest."""
    sent = Headers(scope=scope)
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    own = {name: value for name, value in pairs if name in _OWN_PARAMETERS}
    preferred = {part.split(";")[0].strip().lower() for part in sent.get("prefer", "").split(",")}
    key = sent.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY_CHARS:
        raise BadRequest("Idempotency-Key", key, f"1 to {_KEY_CHARS} characters")
    response = own.get("response", "")
    if response not in ("", "url", "base64"):
        raise BadRequest("response", response, "url or base64")
    if own.get("async", "").lower() not in ("", "true", "false", "1", "0"):
        raise BadRequest("async", own["async"], "true or false")
    deferred = "respond-async" in preferred or own.get("async", "").lower() in ("true", "1")
    return Wish(
        deferred=deferred,
        by_address=response == "url",
        bare=response == "" and _wants_bare(sent.get("accept", ""), route_of(scope)),
        key=key,
        query=urlencode([pair for pair in pairs if pair[0] not in _OWN_PARAMETERS]),
        hook=read_hook(own, sent, deferred=deferred, private=settings.webhook_private),
        priority=read_priority(own.get("priority") or sent.get("x-darkroom-priority", ""), allowance_of(scope)),
    )


def read_priority(text: str, allowance: Allowance) -> int:
    """The priority that a client asks for. Raises LimitExceeded."""
    if not text:
        return min(0, allowance.priority)
    highest = allowance.priority
    if not _WHOLE.fullmatch(text) or not LOWEST <= int(text) <= highest:
        raise LimitExceeded(
            "priority", text, f"a whole number from {LOWEST} to {highest}, the highest that you may ask for"
        )
    return int(text)


class Body:
    """A request's body on its way to the route."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        """The next message of the request."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._parts.append(message.get("body", b""))
        return message

    @property
    def content(self) -> bytes:
        """What has come."""
        return b"".join(self._parts)


class Said:
    """An answer on its way from the route, also passed on at once if there is somebody to pass it on to."""

    def __init__(self, send: Send | None = None, job_id: str = "") -> None:
        self._send = send
        self._job_id = job_id
        self._messages: list[Message] = []

    async def send(self, message: Message) -> None:
        """The next message of the answer. The job goes by what clients find it under, not by the engine's name."""
        if message["type"] == "http.response.start" and self._job_id:
            MutableHeaders(scope=message)["X-Job-Id"] = self._job_id
        # A copy: the layers further out change messages as they pass.
        self._messages.append({**message, "headers": list(message.get("headers", []))})
        if self._send:
            await self._send(message)

    async def pass_on(self, send: Send) -> None:
        """Send all of it."""
        for message in self._messages:
            await send(message)

    def forget(self) -> None:
        """Begin anew."""
        self._messages.clear()

    @property
    def status(self) -> int:
        """The answer's status; 0 if there was none."""
        return int(self._messages[0]["status"]) if self._messages else 0

    @property
    def answered(self) -> Answered:
        """The answer as it is kept."""
        sent = Headers(raw=self._messages[0].get("headers", [])) if self._messages else Headers()
        return Answered(
            status=self.status,
            headers={name: sent[name] for name in _KEPT_HEADERS if name in sent},
            body=b"".join(message.get("body", b"") for message in self._messages[1:]),
        )


def asked_of(attempt: Attempt, wish: Wish, scope: Scope, body: bytes) -> Asked:
    """What is kept of a request."""
    sent = Headers(scope=scope)
    return Asked(
        path=route_of(scope),
        query=wish.query,
        content_type=sent.get("content-type", ""),
        accept=sent.get("accept", ""),
        body=body,
        options=attempt.options.as_json() if attempt.options else {},
        seeds=dict(attempt.seeds),
    )


def _wants_bare(accept: str, path: str) -> bool:
    """Whether a client of A1111's routes asks for a picture and for nothing else."""
    kinds = [part.split(";")[0].strip() for part in accept.split(",")]
    return path.startswith("/sdapi/") and bool(accept) and all(kind.startswith("image/") for kind in kinds)


def _followed(scope: Scope) -> str:
    """The job that a request is about which asks for no work; empty where it is about none."""
    if scope["type"] not in ("http", "websocket"):
        return ""
    found = _FOLLOWED.match(route_of(scope))
    return found[1] if found else ""


def root_of(scope: Scope) -> str:
    """The path under which clients see this server."""
    return str(scope.get("root_path", "")).rstrip("/")


def headers(job_id: str, scope: Scope) -> dict[str, str]:
    """Where an accepted job is found."""
    return {
        "Location": f"{root_of(scope)}/jobs/{job_id}",
        "X-Job-Id": job_id,
        "Preference-Applied": "respond-async",
    }
