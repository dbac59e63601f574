"""The book of jobs: accepted, claimed by a server, ended; listed, found again and removed.

    queued -> running -> {done, interrupted, failed, cancelled};  queued -> cancelled;  running -> queued (taken back)

Every method is one transaction: what it says has happened is on disk. Called from worker threads.
"""

import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from pydantic import TypeAdapter
from sqlalchemy import CursorResult, Select, delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from darkroom.errors import OverLimit
from darkroom.history.audit import Entry, end_entries, row_of
from darkroom.history.database import Database, HistoryDamaged
from darkroom.history.rows import Page, checked, find_one, page, read_one
from darkroom.history.tables import Answer, Charge, Job, Picture, Request, Tag, Turn, Webhook
from darkroom.history.usage import lock_owner
from darkroom.turns import Line, in_turn

State = Literal["queued", "running", "done", "interrupted", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("queued", "running")
FINAL: tuple[State, ...] = ("done", "interrupted", "failed", "cancelled")
Wish = Literal["interrupt", "cancel"]

LEASE_S = 30.0
"""How long a server may be silent before another one takes its jobs."""

SUSPECT_AFTER = 2
"""A job that was begun so often, and never ended, may take the server down with it: it is begun again alone."""

_UNREADABLE: Final = "what was asked cannot be read any more"

MAX_ATTEMPTS = 12
"""A job that was begun so often is not begun again. Many: servers are also lost for reasons of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, enough to ask it again: as sent, with the options that held and the seeds that were drawn for it."""

    path: str
    body: bytes
    query: str = ""
    content_type: str = ""
    accept: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Whom to tell of a job: `started`, or final states."""

    url: str
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a job was answered, its pictures taken out."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A picture whose file is safe under `key`. `id` is what it goes by outside; nobody can guess one."""

    id: str
    job_id: str
    place: int
    owner: str
    created_at: float
    key: str
    media_type: str
    size: int
    sha256: str
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    model: str | None = None
    model_hash: str | None = None
    infotext: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A job as it stands in the book. Times are `time.time()` seconds."""

    id: str
    kind: str
    owner: str
    state: State
    durable: bool
    submitted_at: float
    priority: int = 0
    idempotency_key: str | None = None
    fingerprint: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    claimed_by: str | None = None
    lease_until: float | None = None
    model: str | None = None
    version: str = ""
    wish: Wish | None = None
    http_status: int | None = None
    error_code: str | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in FINAL


_RECORD: Final = TypeAdapter(Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs are listed: None leaves a matter open. `before` is a place in the list, or a job's id."""

    owner: str | None = None
    states: tuple[State, ...] = ()
    kind: str | None = None
    model: str | None = None
    before: str | None = None
    limit: int = 50


class Ledger:
    """The book in a database. `server` tells this process apart from the others that share it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self.server = secrets.token_hex(8)

    def accept(
        self,
        record: Record,
        asked: Asked,
        hook: Hook | None = None,
        *,
        entry: Entry | None = None,
        most_open: int | None = None,
        beside: int = 0,
    ) -> tuple[Record, bool]:
        """Enter a job, and who asked for it; with an idempotency key that its owner has used, the earlier one. True if
        it is new. Raises OverLimit where the owner has as many open ones already, with those `beside` the book, as may
        be.
        """
        try:
            with self._database.begin() as session:
                if most_open is not None:
                    _check_open(session, record, most_open, beside)
                session.add(Job(**_columns(record)))
                session.add_all([row_of(entry)] if entry else ())
                session.flush()
                session.add(Request(job_id=record.id, **_asked_columns(asked)))
                session.add_all(_webhooks(record, hook) if hook else ())
        except IntegrityError:
            earlier = self.find_by_key(record.owner, record.idempotency_key or "")
            if earlier is None:
                raise
            return earlier, False
        return record, True

    def claim(self, *, alone: bool = True, without: frozenset[str] = frozenset()) -> tuple[Record, Asked] | None:
        """Take the job whose turn it is (`turns`), of other owners than those of `without`; None where nothing waits,
        or where the next is for a server that is `alone` with it.
        """
        try:
            return self._claim(alone=alone, without=without)
        except HistoryDamaged:
            if not self._fail_unreadable():
                raise
            return self._claim(alone=alone, without=without)

    def _fail_unreadable(self) -> int:
        """End the open jobs that cannot be read: they would always be in the way of others. How many there were."""
        with self._database.begin() as session:
            ids = session.scalars(select(Job.id).where(Job.state.in_(OPEN))).all()
            unreadable = [job_id for job_id in ids if read_one(session, Job, job_id, record_of) is None]
            session.execute(
                update(Job)
                .where(Job.id.in_(unreadable))
                .values(state="failed", ended_at=self._clock(), error_code="damaged", error=_UNREADABLE)
                .execution_options(synchronize_session=False)
            )
            end_entries(session, unreadable, {"state": "failed", "ended_at": self._clock(), "images": 0})
            return len(unreadable)

    def _claim(self, *, alone: bool, without: frozenset[str]) -> tuple[Record, Asked] | None:
        with self._database.begin() as session:
            job = self._next(session, without)
            if job is None or (record_of(job).attempts >= SUSPECT_AFTER and not alone):
                return None
            job.state, job.started_at = "running", self._clock()
            job.attempts += 1
            job.claimed_by, job.lease_until = self.server, self._clock() + LEASE_S
            _note_turn(session, job)
            record = record_of(job)
        # Apart from it: a damaged request must not be in the way of the others for ever.
        try:
            asked = self.request_of(record.id)
        except HistoryDamaged:
            asked = None
        if asked is None:
            self.end(record.id, "failed", error=("damaged", _UNREADABLE))
            return self.claim(alone=alone, without=without)
        return record, asked

    def _next(self, session: Session, without: frozenset[str]) -> Job | None:
        at_work = select(Job.owner, func.count()).where(Job.state == "running").group_by(Job.owner)
        running: dict[str, int] = {row[0]: row[1] for row in session.execute(at_work)}
        waiting = session.execute(
            select(Job.owner, Job.priority, func.min(Job.submitted_at))
            .where(Job.state == "queued", Job.durable, Job.owner.not_in(without))
            .group_by(Job.owner, Job.priority)
        ).all()
        turns = select(Turn.owner, Turn.priority, Turn.begun_at).where(Turn.owner.in_({row[0] for row in waiting}))
        begun = {(row[0], row[1]): row[2] for row in session.execute(turns) if _is_sound(*row[1:])}
        if not all(_is_sound(*row[1:]) for row in waiting):
            raise HistoryDamaged("the database of jobs is damaged: priority or submitted_at of a row")
        served: dict[str, float] = {}
        for (owner, _), moment in begun.items():
            served[owner] = max(moment, served.get(owner, moment))
        lines = [
            Line(
                party=owner,
                priority=priority,
                since=since,
                begun_at=begun.get((owner, priority), -math.inf),
                served_at=served.get(owner, -math.inf),
                at_work=running.get(owner, 0),
            )
            for owner, priority, since in waiting
        ]
        for line in in_turn(lines, self._clock()):
            turn = (
                select(Job)
                .where(Job.state == "queued", Job.durable, Job.owner == line.party, Job.priority == line.priority)
                .order_by(Job.submitted_at, Job.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            job = session.scalars(turn).first()
            if job is not None:
                return job
        return None

    def renew(self, job_ids: Iterable[str]) -> dict[str, Wish]:
        """Keep jobs for this server; what their owners wish of them meanwhile."""
        ids = list(job_ids)
        with self._database.begin() as session:
            mine = Job.id.in_(ids), Job.claimed_by == self.server
            session.execute(update(Job).where(*mine).values(lease_until=self._clock() + LEASE_S))
            wishes = session.execute(select(Job.id, Job.wish).where(*mine, Job.wish.is_not(None))).all()
            return {job_id: cast(Wish, wish) for job_id, wish in wishes}

    def take_back(self, *, everything: bool = False) -> int:
        """Put jobs of servers that are gone back into the queue; those begun too often fail. How many there were.

        `everything` is for a server that knows itself to be the only one.
        """
        with self._database.begin() as session:
            lost = Job.state == "running", Job.durable
            gone = Job.claimed_by != self.server if everything else Job.lease_until < self._clock()
            hopeless = session.execute(
                update(Job)
                .where(*lost, gone, Job.attempts >= MAX_ATTEMPTS)
                .values(
                    state="failed", ended_at=self._clock(), error_code="server_lost", http_status=500,
                    error=f"the server was lost {MAX_ATTEMPTS} times while it worked on this job",
                )
            )  # fmt: skip
            given_up = select(Job.id).where(Job.state == "failed", Job.error_code == "server_lost")
            end_entries(session, given_up, {"state": "failed", "ended_at": self._clock(), "images": 0})
            again = session.execute(
                update(Job)
                .where(*lost, gone)
                .values(state="queued", started_at=None, claimed_by=None, lease_until=None)
            )
            passing = session.execute(
                update(Job)
                .where(Job.state.in_(OPEN), ~Job.durable, Job.claimed_by != self.server if everything else gone)
                .values(state="cancelled", ended_at=self._clock(), error="the server was lost")
            )
            return _count(hopeless) + _count(again) + _count(passing)

    def hand_back(self) -> int:
        """Put this server's own jobs back into the queue: it stops. How many there were."""
        with self._database.begin() as session:
            mine = Job.state == "running", Job.durable, Job.claimed_by == self.server
            again = session.execute(
                update(Job)
                .where(*mine)
                .values(state="queued", started_at=None, claimed_by=None, lease_until=None, attempts=Job.attempts - 1)
            )
            return _count(again)

    def enter(self, record: Record, asked: Asked, answered: Answered | None, pictures: Sequence[Kept]) -> None:
        """Enter a job that has ended already: one that somebody waited for."""
        with self._database.begin() as session:
            session.add(Job(**_columns(record)))
            session.flush()
            session.add(Request(job_id=record.id, **_asked_columns(asked)))
            _add_result(session, record.id, answered, pictures)

    def end(
        self,
        job_id: str,
        state: State,
        *,
        answered: Answered | None = None,
        pictures: Sequence[Kept] = (),
        error: tuple[str, str] | None = None,
        model: str | None = None,
    ) -> bool:
        """Write down how a job ended; False where it is not this server's any more, and nothing was written."""
        with self._database.begin() as session:
            ended = session.execute(
                update(Job)
                .where(Job.id == job_id, Job.state == "running", Job.claimed_by == self.server)
                .values(
                    state=state, ended_at=self._clock(), model=model, lease_until=None,
                    http_status=answered.status if answered else None,
                    error_code=error[0] if error else None, error=error[1] if error else None,
                )
            )  # fmt: skip
            if not _count(ended):
                return False
            end_entries(
                session,
                [job_id],
                {
                    "state": state,
                    "ended_at": self._clock(),
                    "images": len(pictures),
                    **({"model": model} if model else {}),
                },
            )
            _add_result(session, job_id, answered, pictures)
            return True

    def wish(self, job_id: str, wish: Wish) -> Record | None:
        """Ask for a job's end. One that waits ends now; one at work, when its server hears of it. None: no such job."""
        with self._database.begin() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None:
                return None
            if job.state == "queued":
                job.state, job.ended_at = "cancelled", self._clock()
                end_entries(session, [job_id], {"state": job.state, "ended_at": job.ended_at, "images": 0})
                session.execute(delete(Charge).where(Charge.job_id == job_id))
            elif job.state == "running" and job.wish != "cancel":
                job.wish = wish
            return record_of(job)

    def find(self, job_id: str) -> Record | None:
        """A job. Raises RowDamaged."""
        with self._database.begin() as session:
            return find_one(session, Job, job_id, record_of, name="job")

    def find_by_key(self, owner: str, key: str) -> Record | None:
        """The job that an owner gave a key. Raises RowDamaged."""
        with self._database.begin() as session:
            job_id = session.scalar(select(Job.id).where(Job.owner == owner, Job.idempotency_key == key))
            return find_one(session, Job, job_id, record_of, name="job") if job_id else None

    def list_jobs(self, wanted: Wanted) -> Page[Record]:
        """Jobs, the last submitted first; without those that cannot be read any more. Raises BadRequest."""
        with self._database.begin() as session:
            chosen = _narrowed(select(Job), wanted)
            at = Job.submitted_at
            return page(session, chosen, Job, at, record_of, before=wanted.before, limit=wanted.limit)

    def waiting_before(self, record: Record) -> int:
        """How many jobs wait that were submitted earlier, or are of a higher priority."""
        earlier = (Job.priority > record.priority) | (
            (Job.priority == record.priority) & (Job.submitted_at < record.submitted_at)
        )
        with self._database.begin() as session:
            return session.scalar(select(func.count()).where(Job.state == "queued", earlier)) or 0

    def count_open(self, owner: str | None = None) -> int:
        """How many jobs wait or are at work."""
        chosen = select(func.count()).where(Job.state.in_(OPEN), Job.durable)
        with self._database.begin() as session:
            return session.scalar(chosen if owner is None else chosen.where(Job.owner == owner)) or 0

    def open_by_owner(self) -> dict[str, int]:
        """How many jobs wait or are at work, by owner."""
        chosen = select(Job.owner, func.count()).where(Job.state.in_(OPEN), Job.durable).group_by(Job.owner)
        with self._database.begin() as session:
            return {row[0]: row[1] for row in session.execute(chosen)}

    def count_promised(self) -> dict[str, int]:
        """How many promised jobs wait, and how many are at work, by state."""
        chosen = select(Job.state, func.count()).where(Job.state.in_(OPEN), Job.durable).group_by(Job.state)
        with self._database.begin() as session:
            return {row[0]: row[1] for row in session.execute(chosen)}

    def request_of(self, job_id: str) -> Asked | None:
        """What a job was asked. Raises RowDamaged."""
        with self._database.begin() as session:
            return find_one(session, Request, job_id, _asked, name="the request of job")

    def answer_of(self, job_id: str) -> Answered | None:
        """What a job was answered. Raises RowDamaged."""
        with self._database.begin() as session:
            return find_one(session, Answer, job_id, _answered, name="the answer of job")

    def remove(self, job_id: str) -> list[str] | None:
        """Forget an ended job with its pictures; the keys of the files that may go now. None: no such job."""
        with self._database.begin() as session:
            job = session.get(Job, job_id)
            if job is None or job.state in OPEN:
                return None
            keys = list(session.scalars(select(Picture.key).where(Picture.job_id == job_id)))
            session.execute(delete(Job).where(Job.id == job_id))
            return keys

    def forget_before(self, moment: float) -> int:
        """Forget jobs that ended before a moment and have no pictures left. How many there were."""
        with self._database.begin() as session:
            old = Job.state.in_(FINAL), Job.ended_at < moment
            gone = session.execute(delete(Job).where(*old, ~exists().where(Picture.job_id == Job.id)))
            return _count(gone)


def new_id() -> str:
    """An id that nobody can guess."""
    return secrets.token_hex(12)


def _narrowed(chosen: Select[Job], wanted: Wanted) -> Select[Job]:
    if wanted.owner is not None:
        chosen = chosen.where(Job.owner == wanted.owner)
    if wanted.states:
        chosen = chosen.where(Job.state.in_(wanted.states))
    if wanted.kind is not None:
        chosen = chosen.where(Job.kind == wanted.kind)
    if wanted.model is not None:
        chosen = chosen.where(Job.model.contains(wanted.model, autoescape=True))
    return chosen


def _add_result(session: Session, job_id: str, answered: Answered | None, pictures: Sequence[Kept]) -> None:
    if answered:
        session.add(Answer(job_id=job_id, status=answered.status, headers=dict(answered.headers), body=answered.body))
    for picture in pictures:
        columns = {name: getattr(picture, name) for name in picture.__dataclass_fields__ if name != "tags"}
        session.add(Picture(**columns))
        session.flush()
        session.add_all(Tag(picture_id=picture.id, name=name) for name in picture.tags)


def _webhooks(record: Record, hook: Hook) -> Iterable[Webhook]:
    """A row for each moment of which somebody is told."""
    ends = [event for event in hook.events if event != "started"]
    for moment, events in (("started", ["started"]), ("ended", ends)):
        if set(events) & set(hook.events):
            yield Webhook(
                id=new_id(), job_id=record.id, moment=moment, events=events, url=hook.url, next_at=record.submitted_at
            )


def _check_open(session: Session, record: Record, most: int, beside: int) -> None:
    """Raises OverLimit where an owner has as many open jobs as may be, unless the job is there already."""
    lock_owner(session, record.owner)
    mine = Job.owner == record.owner
    same = select(Job.id).where(mine, Job.idempotency_key == record.idempotency_key)
    if record.idempotency_key is not None and session.scalars(same).first():
        return
    there = session.scalar(select(func.count()).where(Job.state.in_(OPEN), Job.durable, mine)) or 0
    if there + beside >= most:
        raise OverLimit(f"jobs: no more than {most} of yours may wait or be at work at once", retry_after_s=2)


def _is_sound(priority: object, moment: object) -> bool:
    return isinstance(priority, int) and isinstance(moment, float)


def _note_turn(session: Session, job: Job) -> None:
    lock_owner(session, job.owner)
    turn = session.get(Turn, (job.owner, job.priority))
    if turn is None:
        session.add(Turn(owner=job.owner, priority=job.priority, begun_at=job.started_at))
    else:
        turn.begun_at = job.started_at or 0.0


def _count(result: Any) -> int:
    return int(cast(CursorResult[Any], result).rowcount)


def _columns(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _asked_columns(asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in asked.__dataclass_fields__}


def record_of(job: Job) -> Record:
    """A row as a value. Raises HistoryDamaged."""
    return checked(_RECORD, {name: getattr(job, name) for name in Record.__dataclass_fields__})


def _answered(found: Answer) -> Answered:
    return Answered(status=found.status, body=found.body, headers=found.headers)


def _asked(found: Request) -> Asked:
    return Asked(**{name: getattr(found, name) for name in Asked.__dataclass_fields__})
