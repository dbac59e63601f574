"""Where a job stands: what the book says of it, and what the engine says where it is at work in this process."""

import time
from dataclasses import dataclass

from darkroom import __version__
from darkroom.api.context import Context
from darkroom.api.jobs.attempt import Attempt
from darkroom.api.jobs.desk import Desk
from darkroom.api.jobs.documents import JobDocument, job_document
from darkroom.api.owners import may_see
from darkroom.errors import UnknownName
from darkroom.history.ledger import Kept, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`fraction` is 0..1; `job_id` the engine's job that is at work, if there is one."""

    fraction: float
    eta_s: float | None = None
    job_id: str | None = None


def progress_of(attempt: Attempt, context: Context, now: float) -> Progress:
    """How far a request has come that is served here."""
    statuses = attempt.statuses(context)
    if attempt.chores:
        return Progress(fraction=attempt.chores[-1].fraction)
    if not statuses:
        return Progress(fraction=0.0)
    series = context.find_series(statuses[-1])
    planned = max(series.planned if series else 1, len(statuses))
    fraction = min(sum(status.fraction for status in statuses) / planned, 1.0)
    running = next((status for status in statuses if status.state == "running"), None)
    began = min((status.started_at for status in statuses if status.started_at), default=None)
    eta_s = (now - began) * (1 / fraction - 1) if began and fraction > 0 else None
    return Progress(fraction=fraction, eta_s=eta_s, job_id=running.job_id if running else None)


def passing_record(attempt: Attempt, context: Context) -> Record:
    """A request that somebody waits for, as if it stood in the book."""
    statuses = attempt.statuses(context)
    submitted = min((status.submitted_at for status in statuses), default=time.time())
    started = min((status.started_at for status in statuses if status.started_at), default=None)
    return Record(
        id=attempt.id,
        kind=attempt.kind,
        owner=attempt.owner,
        state="running" if started else "queued",
        durable=False,
        submitted_at=submitted,
        started_at=started,
        attempts=1,
        model=attempt.model,
        version=__version__,
    )


async def show(desk: Desk, context: Context, record: Record, *, pictures: bool = True) -> JobDocument:
    """A job as clients see it."""
    now = time.time()
    attempt = desk.present.get(record.id)
    images: list[Kept] = []
    if record.ended and pictures:
        images = await desk.do(lambda books: books.gallery.of_job(record.id))
    calls = await desk.do(lambda books: books.outbox.of_job(record.id)) if record.durable and pictures else []
    progress = progress_of(attempt, context, now) if attempt and not record.ended else None
    position = None
    if record.state == "queued" and record.durable:
        position = await desk.do(lambda books: books.ledger.waiting_before(record))
    return job_document(
        record,
        images,
        now=now,
        progress=progress.fraction if progress else None,
        eta_s=progress.eta_s if progress else None,
        position=position,
        calls=calls,
    )


async def get_record(desk: Desk, context: Context, job_id: str, viewer: str) -> Record:
    """A job that the viewer may see. Raises UnknownName, also for one of somebody else's."""
    attempt = desk.present.get(job_id)
    record = await desk.do(lambda books: books.ledger.find(job_id))
    if record is None and attempt:
        record = passing_record(attempt, context)
    if record is None or not may_see(viewer, record.owner):
        raise UnknownName("job", job_id, [])
    return record
