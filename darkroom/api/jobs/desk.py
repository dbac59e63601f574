"""Where requests for work are taken in and followed: the book, the gallery, the files, and what is at work here.

One for each application. The database is opened when it is first needed.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from asyncio import Event
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.types import ASGIApp

from darkroom import __version__
from darkroom.api.jobs.attempt import Attempt
from darkroom.api.jobs.keeping import keep_pictures, rebuild
from darkroom.api.jobs.unpacking import link
from darkroom.api.stopping import Stopping
from darkroom.api.traces import UNTRACED, Traces
from darkroom.errors import Busy, UnknownName
from darkroom.history.audit import Audit, Entry
from darkroom.history.database import Database, sqlite_url
from darkroom.history.files import Files, open_files
from darkroom.history.gallery import Gallery
from darkroom.history.ledger import Answered, Asked, Hook, Kept, Ledger, Record, State
from darkroom.history.usage import Usage
from darkroom.history.webhooks import Outbox
from darkroom.kept_secrets import kept_secret
from darkroom.settings import Settings
from darkroom.turns import has_place

T = TypeVar("T")

FAR_LOOK_S = 1.0
"""How often a job is looked for that is not done here."""

LAST_WORDS_S = 5.0
"""How long a server that stops goes on writing down what was answered."""

_THREADS = 4
"""Transactions and files at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Books:
    """What is open once the database is."""

    database: Database
    ledger: Ledger
    gallery: Gallery
    outbox: Outbox
    files: Files
    audit: Audit
    usage: Usage
    secret: bytes
    webhook_key: bytes


@dataclass(slots=True, eq=False)
class Desk:
    """`present` are the requests that are served now, by id. `called` is told when a job was accepted here, `ended`
    when one ended; `serve` are the routes, without the layers in front of them.
    """

    settings: Settings
    present: dict[str, Attempt] = field(default_factory=dict)
    called: Callable[[], None] = lambda: None
    ended: Callable[[], None] = lambda: None
    serve: ASGIApp | None = None
    stopping: Stopping = field(default_factory=Stopping)
    endings: dict[str, Event] = field(default_factory=dict)
    traces: Traces = UNTRACED
    _afterwards: set[asyncio.Task[None]] = field(default_factory=set)
    _books: Books | None = None
    _opening: Lock = field(default_factory=Lock)
    _threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_THREADS))

    @property
    def has_books(self) -> bool:
        """Whether there is anything in them: a server that nobody asked to promise or keep anything has none."""
        return (
            bool(self._books or self.settings.database_url.get_secret_value()) or _database_file(self.settings).exists()
        )

    def books(self) -> Books:
        """The open books; opens them, which may take a while. Raises HistoryUnavailable, FilesUnavailable."""
        with self._opening:
            if self._books is None:
                self._books = _open(self.settings)
            return self._books

    async def do(self, work: Callable[[Books], T]) -> T:
        """What `work` gives, done in a thread."""
        return await to_thread.run_sync(lambda: work(self.books()), limiter=self._threads)

    async def accept(
        self,
        attempt: Attempt,
        asked: Asked,
        key: str | None,
        hook: Hook | None = None,
        *,
        most_open: int | None = None,
        beside: int = 0,
        entry: Entry | None = None,
    ) -> tuple[Record, bool]:
        """Enter a job that was promised; the earlier one of the same key. True if it is new. Raises Busy, and OverLimit
        where the owner has `most_open` jobs already, with those `beside` the book.
        """

        def enter(books: Books) -> tuple[Record, bool]:
            waiting = books.ledger.open_by_owner()
            if not has_place(attempt.owner, waiting, self.settings.max_jobs):
                earlier = books.ledger.find_by_key(attempt.owner, key) if key else None
                if earlier:
                    return earlier, False
                raise Busy(_fullness(attempt.owner, waiting, self.settings.max_jobs), retry_after_s=5)
            record = _record(attempt, "queued", asked, key)
            return books.ledger.accept(record, asked, hook, entry=entry, most_open=most_open, beside=beside)

        record, new = await self.do(enter)
        if new:
            self.called()
        return record, new

    async def audit(self, entry: Entry) -> None:
        """Enter who asked for what, for a request that somebody waited for."""
        await self.do(lambda books: books.audit.enter(entry))

    async def remember(
        self, attempt: Attempt, asked: Asked, answered: Answered, began: float
    ) -> tuple[Answered, list[Kept]]:
        """Enter a job that somebody waited for, and that has ended; what is left of its answer, and its pictures."""

        def enter(books: Books) -> tuple[Answered, list[Kept]]:
            left, kept = keep_pictures(books.files, attempt.id, attempt.owner, answered)
            record = _record(attempt, "interrupted" if attempt.interrupted else "done", asked, None, began)
            books.ledger.enter(record, asked, left, kept)
            return left, kept

        return await self.do(enter)

    async def remember_linked(
        self, attempt: Attempt, asked: Asked, answered: Answered, began: float, root: str
    ) -> bytes:
        """As `remember`; gives the answer with addresses in the place of pictures, good for `link_valid_s`."""
        left, kept = await self.remember(attempt, asked, answered, began)
        return linked_body(self.books().secret, left.body, kept, root, self.settings)

    async def wait_for(self, job_id: str) -> Record:
        """A job once it has ended. One that another server does is looked for now and then."""
        while True:
            ending = self.endings.setdefault(job_id, Event())
            record = await self.do(lambda books: books.ledger.find(job_id))
            if record is None or record.ended:
                self.endings.pop(job_id, None)
                if record is None:
                    raise UnknownName("job", job_id, [])
                return record
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), FAR_LOOK_S)

    def tell_end(self, job_id: str) -> None:
        """Wake whoever waits for a job."""
        self.ended()
        ending = self.endings.pop(job_id, None)
        if ending:
            ending.set()

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do what nobody waits for, before the server has stopped."""
        task = asyncio.ensure_future(work)
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)
        return task

    async def finish(self) -> None:
        """Wait for that, but not for long."""
        if self._afterwards:
            await asyncio.wait(self._afterwards, timeout=LAST_WORDS_S)

    def close(self) -> None:
        """Close the database if it is open."""
        if self._books:
            self._books.database.close()


def rebuilt(books: Books, job_id: str, root: str, settings: Settings, *, linked: bool) -> tuple[bytes, Answered | None]:
    """The body of a job's answer with its pictures or their addresses in it, and the rest; None if there is none."""
    answered = books.ledger.answer_of(job_id)
    if answered is None:
        return b"", None
    pictures = books.gallery.of_job(job_id)
    if linked:
        return linked_body(books.secret, answered.body, pictures, root, settings), answered
    return rebuild(answered, pictures, books.files), answered


def linked_body(secret: bytes, body: bytes, pictures: Sequence[Kept], root: str, settings: Settings) -> bytes:
    """An answer without its pictures, with their addresses in it."""
    until = int(time.time() + settings.link_valid_s)
    return link(body, [root + signed_path(secret, one.id, until) for one in pictures])


def signed_path(secret: bytes, picture_id: str, until: int) -> str:
    """The path of a picture's file that opens without a password until a time (Unix seconds)."""
    path = f"/images/{picture_id}/file"
    return f"{path}?expires={until}&signature={sign(secret, f'{path}?{until}')}"


def is_signed(secret: bytes, path: str, expires: str, signature: str, now: float) -> bool:
    """Whether an address was signed here and still counts."""
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or int(expires) < now:
        return False
    return hmac.compare_digest(sign(secret, f"{path}?{expires}").encode(), signature.encode("utf-8", "replace"))


def fingerprint(asked: Asked) -> str:
    """Tells whether two requests are the same."""
    parts = (asked.path.encode(), asked.query.encode(), asked.accept.encode(), asked.body)
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _fullness(owner: str, waiting: Mapping[str, int], room: int) -> str:
    there = sum(waiting.values())
    if there >= room:
        return f"{there} jobs are waiting already; at most {room} may"
    return f"{waiting[owner]} of your jobs are waiting already; the rest of the {room} is for others"


def _record(attempt: Attempt, state: State, asked: Asked, key: str | None, began: float | None = None) -> Record:
    now = time.time()
    return Record(
        id=attempt.id,
        kind=attempt.kind,
        owner=attempt.owner,
        state=state,
        durable=began is None,
        priority=attempt.priority,
        idempotency_key=key,
        fingerprint=fingerprint(asked),
        submitted_at=now if began is None else began,
        started_at=began,
        ended_at=None if began is None else now,
        model=attempt.model,
        version=__version__,
        http_status=None if began is None else 200,
    )


def _open(settings: Settings) -> Books:
    database = Database(settings.database_url.get_secret_value() or sqlite_url(_database_file(settings)))
    return Books(
        database=database,
        ledger=Ledger(database),
        gallery=Gallery(database),
        outbox=Outbox(database),
        audit=Audit(database),
        usage=Usage(database),
        files=open_files(settings.pictures_url, settings.data_dir / "pictures"),
        secret=kept_secret(settings.signing_key, settings.data_dir / "signing-key", secrets.token_bytes(32)),
        # As text: whoever receives webhooks is given it.
        webhook_key=kept_secret(
            settings.webhook_key, settings.data_dir / "webhook-key", secrets.token_hex(32).encode()
        ).strip(),
    )


def _database_file(settings: Settings) -> Path:
    return settings.data_dir / "history.db"


def sign(secret: bytes, text: str) -> str:
    """A signature that only who knows the secret can make, 32 hexadecimal digits."""
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:32]
