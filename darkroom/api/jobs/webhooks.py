"""Webhooks: whoever asked to be called is told what became of a job, by a signed POST, until it is heard.

Calls are kept in the book. They are made when their moment has come, whatever the job does meanwhile; what is refused
or not answered is tried again later, also by another server or after a restart.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
import httpcore
from starlette.datastructures import Headers

from darkroom import __version__
from darkroom.api.context import Context
from darkroom.api.jobs.course import show
from darkroom.api.jobs.desk import Books, Desk
from darkroom.errors import BadRequest, DarkroomError
from darkroom.guarded_network import (
    GuardedNetwork,
    NotAnAddressError,
    NotPublicError,
    Resolve,
    is_numeric,
    is_public,
    look_up,
    parse_address,
)
from darkroom.history.ledger import FINAL, Hook
from darkroom.history.webhooks import CallState, Due
from darkroom.logs import about

log = logging.getLogger(__name__)

EVENTS: Final = ("started", *FINAL)
"""What may be told of a job."""

HEADER: Final = "X-Darkroom-Webhook"
EVENTS_HEADER: Final = "X-Darkroom-Webhook-Events"

LOOK_S = 1.0
"""How often the book is looked at for calls whose time has come."""

LIMIT_S = 15.0
"""How long a call may take. Well below what a server has for it before it counts as lost."""

AT_ONCE = 16
"""Calls at the same time: one slow receiver keeps no other waiting."""

_MOST_CHARS = 2000


class Undelivered(Exception):
    """A call that came to nothing; says why."""


def read_hook(own: Mapping[str, str], sent: Headers, *, deferred: bool, private: bool) -> Hook | None:
    """Whom a request wants told: `?webhook=` and `?webhook_events=`, or headers. Raises BadRequest.

    A host that is a number and not a public one is refused at once; what a name stands for shows when it is called.
    """
    address = own.get("webhook") or sent.get(HEADER, "")
    wanted = own.get("webhook_events") or sent.get(EVENTS_HEADER, "")
    if not address:
        if wanted:
            raise BadRequest("webhook_events", wanted, "only together with webhook")
        return None
    if not deferred:
        raise BadRequest("webhook", address, "only together with Prefer: respond-async or ?async=true")
    if len(address) > _MOST_CHARS:
        raise BadRequest("webhook", address, f"at most {_MOST_CHARS} characters")
    try:
        url, _ = parse_address(address)
    except NotAnAddressError as error:
        raise BadRequest("webhook", address, str(error)) from None
    host = url.host.decode()
    if not private and is_numeric(host) and not is_public(host):
        raise BadRequest("webhook", address, "a host on the public network (the operator may allow others)")
    events = tuple(dict.fromkeys(part.strip() for part in wanted.split(",") if part.strip()))
    for event in events:
        if event not in EVENTS:
            raise BadRequest("webhook_events", event, f"any of {', '.join(EVENTS)}")
    return Hook(url=address, events=events or FINAL)


class Courier:
    """Makes calls between `start` and `stop`. `count` is told how each came to stand."""

    def __init__(
        self,
        context: Context,
        desk: Desk,
        *,
        count: Callable[[CallState], None] = lambda _: None,
        resolve: Resolve = look_up,
    ) -> None:
        self._context = context
        self._desk = desk
        self._count = count
        self._resolve = resolve
        self._wake = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._desk.ended = self._wake.set
        self._watch = asyncio.ensure_future(self._look())

    async def stop(self) -> None:
        """Make no more calls. Those that are under way are made again later."""
        tasks = [*self._calls, *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Take calls from the book whenever some may be due."""
        while True:
            room = AT_ONCE - len(self._calls)
            if room and self._desk.has_books:
                for due in await self._claim(room):
                    task = asyncio.ensure_future(self._deliver(due))
                    self._calls.add(task)
                    task.add_done_callback(self._done)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # `wait_for` may lose a cancellation (Python before 3.12)
                    await self._wake.wait()

    async def _claim(self, room: int) -> list[Due]:
        try:
            return await self._desk.do(lambda books: books.outbox.claim(room))
        except DarkroomError as error:
            log.error("no webhook can be taken: %s", error)
            return []

    def _done(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if len(self._calls) >= AT_ONCE - 1:
            self._wake.set()

    async def _deliver(self, due: Due) -> None:
        with about(due.job.id):
            try:
                error = await self._call(due)
                state = await self._desk.do(lambda books: self._settle(books, due, error))
            except asyncio.CancelledError:
                await asyncio.shield(self._hand_back(due))
                raise
            except DarkroomError as reason:
                log.error("webhook %s: %s", due.id, reason)
                return
            self._count(state)
            if state == "given_up":
                log.warning("webhook %s (%s) is given up: %s", due.id, due.event, error)

    async def _call(self, due: Due) -> str | None:
        """Make a call; what went wrong, in words for its owner."""
        body, key = await self._body(due), (await self._desk.do(lambda books: books.webhook_key))
        public_only = not self._context.settings.webhook_private
        try:
            await post(due.url, body, signed(key, due, body, int(time.time())), self._resolve, public_only=public_only)
        except Undelivered as error:
            return str(error)
        return None

    async def _body(self, due: Due) -> bytes:
        document = await show(self._desk, self._context, due.job)
        told: dict[str, Any] = {
            "id": due.id,
            "event": due.event,
            "created_at": due.job.started_at if due.event == "started" else due.job.ended_at,
            "job": document.model_dump(exclude={"webhooks"}),
        }
        return json.dumps(told).encode()

    def _settle(self, books: Books, due: Due, error: str | None) -> CallState:
        settings = self._context.settings
        return books.outbox.settle(due.id, error, most_tries=settings.webhook_tries, wait_s=settings.webhook_wait_s)

    async def _hand_back(self, due: Due) -> None:
        with suppress(DarkroomError):
            await self._desk.do(lambda books: books.outbox.hand_back(due.id))


def signed(key: bytes, due: Due, body: bytes, now: int) -> dict[str, str]:
    """The headers of a call: HMAC-SHA256 (RFC 2104) over the time, a dot and the body."""
    digest = hmac.new(key, f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": f"darkroom/{__version__}",
        "X-Darkroom-Delivery": due.id,
        "X-Darkroom-Event": due.event,
        "X-Darkroom-Signature": f"t={now},v1={digest}",
    }


async def post(
    address: str, body: bytes, headers: Mapping[str, str], resolve: Resolve = look_up, *, public_only: bool = True
) -> None:
    """Send a body; heard if the answer is a 2xx. No redirect is followed. Raises Undelivered."""
    try:
        url, host = parse_address(address)
        sent = {"Host": host, "Content-Length": str(len(body)), **headers}
        with anyio.fail_after(LIMIT_S):
            network = GuardedNetwork(resolve, public_only=public_only)
            async with httpcore.AsyncConnectionPool(network_backend=network) as pool:
                await _post(pool, url, sent, body)
    except NotAnAddressError as error:
        raise Undelivered(f"it must be {error}") from None
    except NotPublicError:
        raise Undelivered("its host is not there, or not on the public network") from None
    except (TimeoutError, httpcore.TimeoutException):
        raise Undelivered(f"no answer within {LIMIT_S:g} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError):
        raise Undelivered("it cannot be reached") from None


async def _post(pool: httpcore.AsyncConnectionPool, url: httpcore.URL, sent: Mapping[str, str], body: bytes) -> None:
    fields = [(name.encode(), value.encode("ascii")) for name, value in sent.items()]
    async with pool.stream("POST", url, headers=fields, content=body) as answer:
        if not 200 <= answer.status < 300:
            raise Undelivered(f"it answered {answer.status}")
