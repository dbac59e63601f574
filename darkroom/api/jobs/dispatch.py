"""Serves the requests that were promised: takes them from the book, one after another, has their routes answer them as
if they had just come in, and writes down how they ended.

What a server takes, it keeps a lease on. A server that is lost loses its leases, and its jobs are begun anew: they are
done from the same request, options and seeds, and their files overwrite what was left behind.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from darkroom.api.context import Context
from darkroom.api.jobs.attempt import SCOPE, Attempt
from darkroom.api.jobs.desk import Books, Desk
from darkroom.api.jobs.intake import Said
from darkroom.api.jobs.keeping import keep_pictures, remove_files, tidy
from darkroom.api.owners import OWNER, PRIORITY
from darkroom.errors import DarkroomError
from darkroom.history.database import HistoryUnavailable
from darkroom.history.files import FilesUnavailable
from darkroom.history.ledger import LEASE_S, SUSPECT_AFTER, Answered, Asked, Record, State, Wish
from darkroom.history.rows import RowDamaged
from darkroom.logs import about
from darkroom.options.values import OptionValues
from darkroom.turns import has_place

log = logging.getLogger(__name__)

IDLE_S = 2.0
"""How often the book is looked at where nobody calls: other servers may put jobs into it."""

BEAT_S = 1.0
"""How often leases are renewed and the wishes of owners heard."""

TIDY_S = 600.0
"""How often pictures are removed that are too old or too many."""

BUSY_S = 1.0
"""How long a job waits that the engine has no room for."""

AGAIN_S = 1.0
"""How long a job waits whose end cannot be written down."""

PATIENCE_S = 30.0
"""How long pictures are tried to be kept before their job fails."""


class Dispatcher:
    """At work between `start` and `stop`."""

    def __init__(self, app: ASGIApp, context: Context, desk: Desk) -> None:
        self._app = app
        self._context = context
        self._desk = desk
        self._wake = asyncio.Event()
        self._opening = asyncio.Event()
        self._mine: dict[str, Attempt] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble = ""
        self._on_trial = ""

    def start(self) -> None:
        """Begin, in the running event loop."""
        loop = asyncio.get_running_loop()

        def call() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        self._desk.called = call
        self._tasks = [asyncio.ensure_future(self._claim()), asyncio.ensure_future(self._beat())]

    async def stop(self) -> None:
        """Take nothing more, give what is at work the rest of its time, and let it go back into the book then."""
        at_work = [attempt.task for attempt in self._mine.values() if attempt.task]
        if at_work and self._desk.stopping.time_left_s:
            await asyncio.wait(at_work, timeout=self._desk.stopping.time_left_s)
        pending = [*self._tasks, *(attempt.task for attempt in self._mine.values() if attempt.task)]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if self._desk.has_books:
            await self._careful(lambda books: books.ledger.hand_back())

    async def _claim(self) -> None:
        """Take jobs as long as there is room for them."""
        while not self._desk.stopping.begun:
            try:
                taken = self._desk.has_books and await self._take()
                if self._desk.has_books:
                    self._opening.set()
                self._trouble = ""
            except DarkroomError as error:
                self._complain(error)
                taken = False
            if not taken:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):  # `wait_for` may lose a cancellation (Python before 3.12)
                        await self._wake.wait()

    async def _take(self) -> bool:
        """Whether there may be more to take."""
        room = 1 if self._on_trial in self._mine else self._context.settings.jobs_at_once
        if len(self._mine) >= room or not self._context.engine.ready():
            return False
        full = self._without_place(room)
        claimed = await self._desk.do(lambda books: books.ledger.claim(alone=not self._mine, without=full))
        if claimed is None:
            return False
        record, asked = claimed
        if record.attempts > SUSPECT_AFTER:
            self._on_trial = record.id
        attempt = Attempt(
            id=record.id, kind=record.kind, owner=record.owner, priority=record.priority, seeds=asked.seeds
        )
        self._mine[record.id] = self._desk.present[record.id] = attempt
        attempt.task = asyncio.ensure_future(self._work(attempt, record, asked))
        return True

    def _without_place(self, room: int) -> frozenset[str]:
        """The owners who have so much at work here that they leave the rest of the room to others."""
        taken = Counter(attempt.owner for attempt in self._mine.values())
        return frozenset(owner for owner in taken if not has_place(owner, taken, room))

    async def _work(self, attempt: Attempt, record: Record, asked: Asked) -> None:
        """Serve a request, and write down how it ended."""
        with about(attempt.id), self._desk.traces.job(record, asked.traceparent):
            await self._work_on(attempt, record, asked)

    async def _work_on(self, attempt: Attempt, record: Record, asked: Asked) -> None:
        log.info("job %s: begun", record.id)
        try:
            said = Said()
            attempt.options = OptionValues().merged(asked.options)
            await self._serve(attempt, asked, said)
            await self._write(attempt, said.answered)
        except asyncio.CancelledError:
            if attempt.cancelled:
                await self._end(attempt, "cancelled", error=("cancelled", "the job was cancelled"))
        except DarkroomError as error:
            log.error("job %s: %s", record.id, error)
            await self._end(attempt, "failed", error=(error.code, str(error)))
        except Exception as error:  # the boundary of a request, as for one that somebody waits for
            log.exception("job %s failed", record.id)
            await self._end(attempt, "failed", error=("internal", type(error).__name__))
        finally:
            self._mine.pop(attempt.id, None)
            self._desk.present.pop(attempt.id, None)
            self._desk.tell_end(attempt.id)
            self._wake.set()

    async def _serve(self, attempt: Attempt, asked: Asked, said: Said) -> None:
        """Have the route answer. Where the engine is full, wait for room."""
        assert self._desk.serve is not None, "the routes are known before the first request"
        while True:
            await self._desk.serve(self._scope(attempt, asked), _receiving(asked.body), said.send)
            if said.status != 429:
                return
            said.forget()
            await asyncio.sleep(BUSY_S)

    def _scope(self, attempt: Attempt, asked: Asked) -> Scope:
        sent = {"content-type": asked.content_type, "accept": asked.accept, "content-length": str(len(asked.body))}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": asked.path,
            "raw_path": asked.path.encode(),
            "root_path": "",
            "query_string": asked.query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if value],
            "client": None,
            "server": None,
            "app": self._app,
            "state": {},
            SCOPE: attempt,
            OWNER: attempt.owner,
            PRIORITY: attempt.priority,
        }

    async def _write(self, attempt: Attempt, answered: Answered) -> None:
        if answered.status != 200:
            await self._end(attempt, "failed", answered=answered, error=_refusal(answered))
            return
        state: State = "interrupted" if attempt.interrupted else "done"

        def keep(books: Books) -> bool:
            left, kept = keep_pictures(books.files, attempt.id, attempt.owner, answered)
            if books.ledger.end(attempt.id, state, answered=left, pictures=kept, model=attempt.model):
                return True
            _clear_away(books, attempt.id, [one.key for one in kept])
            return False

        if await self._insist(keep):
            log.info("job %s: %s", attempt.id, state)
            self._desk.traces.note("state", state)
        else:
            log.warning("job %s was ended or taken over meanwhile", attempt.id)

    async def _end(
        self,
        attempt: Attempt,
        state: State,
        *,
        error: tuple[str, str],
        answered: Answered | None = None,
    ) -> None:
        def end(books: Books) -> bool:
            return books.ledger.end(attempt.id, state, answered=answered, error=error, model=attempt.model)

        log.info("job %s: %s: %s", attempt.id, state, error[1])
        self._desk.traces.note("state", state)
        await self._insist(end)

    async def _insist(self, write: Callable[[Books], bool]) -> bool:
        """Write down how a job ended, however long the database cannot be written to: what was done is not lost.

        Raises FilesUnavailable where pictures cannot be kept for long.
        """
        patient_until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self._desk.do(write)
            except HistoryUnavailable as reason:
                self._complain(reason)
            except FilesUnavailable as reason:
                if time.monotonic() >= patient_until:
                    raise
                self._complain(reason)
            await asyncio.sleep(AGAIN_S)

    async def _beat(self) -> None:
        """Renew leases, hear wishes, and look for jobs of servers that are gone."""
        await self._opening.wait()
        while await self._careful(_take_over_all) is None:  # noqa: ASYNC110  the database says nothing by itself
            await asyncio.sleep(BEAT_S)
        self._wake.set()
        since, untidy = 0.0, TIDY_S
        while True:
            await asyncio.sleep(BEAT_S)
            if self._mine:
                self._fulfil(await self._careful(self._renew) or {})
            untidy += BEAT_S
            if untidy >= TIDY_S:
                untidy = 0.0
                await self._careful(self._tidy)
            since += BEAT_S
            if since >= LEASE_S:
                since = 0.0
                if await self._careful(self._take_over):
                    self._wake.set()

    def _tidy(self, books: Books) -> int:
        books.usage.tidy()
        books.audit.forget_before(time.time() - self._context.settings.audit_days * 86_400)
        return tidy(books.gallery, books.ledger, books.files, self._context.settings)

    def _renew(self, books: Books) -> dict[str, Wish]:
        return books.ledger.renew(list(self._mine))

    def _take_over(self, books: Books) -> int:
        """Also what this server has begun and forgotten, because the database failed it. What it works on is safe."""
        books.ledger.renew(list(self._mine))
        return books.ledger.take_back()

    def _fulfil(self, wishes: Mapping[str, Wish]) -> None:
        for job_id, wish in wishes.items():
            attempt = self._mine.get(job_id)
            if attempt and wish == "cancel":
                attempt.cancel()
            elif attempt:
                attempt.interrupt(self._context)

    async def _careful(self, work: Callable[[Books], Any]) -> Any:
        try:
            return await self._desk.do(work)
        except DarkroomError as error:
            self._complain(error)
            return None

    def _complain(self, error: DarkroomError) -> None:
        """Once for each kind of trouble, and not every second."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.error("the book of jobs: %s", error)


def _take_over_all(books: Books) -> int:
    """What was at work when a server was lost. On SQLite there is one server: whatever is not its own is lost."""
    return books.ledger.take_back(everything=books.database.is_sqlite)


def _clear_away(books: Books, job_id: str, keys: Sequence[str]) -> None:
    """Let files go that belong to nothing: their job was cancelled while it ended. What another server does, stays."""
    try:
        record = books.ledger.find(job_id)
    except RowDamaged:
        record = None  # nobody goes on with it
    if (record is None or record.ended) and not books.gallery.of_job(job_id):
        remove_files(books.files, keys)


def _receiving(body: bytes) -> Callable[[], Any]:
    """A client that sends its request and then waits, for as long as it takes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    return receive


def _refusal(answered: Answered) -> tuple[str, str]:
    """The code and the words of a refusal."""
    try:
        document = json.loads(answered.body)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    inner = document.get("error")
    openai = inner if isinstance(inner, dict) else {}
    detail = document.get("detail") or document.get("errors") or openai.get("message") or f"status {answered.status}"
    return str(document.get("code") or openai.get("code") or "refused"), str(detail)
