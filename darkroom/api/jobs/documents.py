"""How jobs and pictures look to clients: one shape each, wherever they are shown."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from darkroom.history.ledger import Kept, Record
from darkroom.history.webhooks import Call


class JobError(BaseModel):
    """Why a job failed."""

    code: str = Field(description="What kind of error; stable.")
    detail: str = Field(description="The error in words.")


class JobLinks(BaseModel):
    """Where more is found; paths below the server's root."""

    self: str
    request: str
    result: str
    events: str


class WebhookDocument(BaseModel):
    """Somebody who is told of a job, and whether that has worked."""

    id: str = Field(description="X-Darkroom-Delivery: stays the same when it is tried again.")
    url: str
    events: list[str] = Field(description="What is told.")
    state: str = Field(description="waiting, delivered, given_up, or unwanted: the job came to another end.")
    tries: int = Field(description="How often it was called.")
    next_at: float | None = Field(description="When it is called next, Unix time; null where it is not any more.")
    delivered_at: float | None
    error: str | None = Field(description="Why the last call came to nothing.")


class ImageDocument(BaseModel):
    """A picture that was made."""

    id: str = Field(description="What the picture goes by.")
    job_id: str
    place: int = Field(description="Its place among the pictures of its job, from 0.")
    url: str = Field(description="Path of the file.")
    thumbnail: str = Field(description="Path of a small form of it.")
    media_type: str
    width: int | None
    height: int | None
    bytes: int
    sha256: str
    seed: int | None
    model: str | None
    model_hash: str | None
    infotext: str
    tags: list[str]
    owner: str
    created_at: float = Field(description="Unix time, seconds.")


class JobDocument(BaseModel):
    """A job. Times are Unix time, durations seconds."""

    id: str
    kind: str = Field(description="Which route does its work: txt2img, img2img, extras, ...")
    state: str = Field(description="queued, running, done, interrupted, failed or cancelled.")
    owner: str
    asynchronous: bool = Field(description="Whether it was promised: then it is done also after a crash.")
    priority: int
    position: int | None = Field(None, description="How many jobs are before it in the queue.")
    progress: float = Field(description="0 to 1.")
    eta_s: float | None = Field(None, description="Seconds until it is done, as far as can be told.")
    model: str | None
    version: str = Field(description="The version of the server that took it in.")
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    wait_s: float | None = Field(description="Seconds in the queue.")
    run_s: float | None = Field(description="Seconds at work.")
    attempts: int = Field(description="How often it was begun.")
    http_status: int | None = Field(description="Status of the answer that a waiting client would have had.")
    error: JobError | None
    images: list[ImageDocument]
    webhooks: list[WebhookDocument] = Field([], description="Who is told of it; left out in lists.")
    links: JobLinks


def image_document(kept: Kept) -> ImageDocument:
    """A picture as clients see it."""
    return ImageDocument(
        id=kept.id,
        job_id=kept.job_id,
        place=kept.place,
        url=f"/images/{kept.id}/file",
        thumbnail=f"/images/{kept.id}/thumbnail",
        media_type=kept.media_type,
        width=kept.width,
        height=kept.height,
        bytes=kept.size,
        sha256=kept.sha256,
        seed=kept.seed,
        model=kept.model,
        model_hash=kept.model_hash,
        infotext=kept.infotext,
        tags=list(kept.tags),
        owner=kept.owner,
        created_at=kept.created_at,
    )


def _webhook_document(call: Call) -> WebhookDocument:
    return WebhookDocument(
        id=call.id,
        url=call.url,
        events=list(call.events),
        state=call.state,
        tries=call.tries,
        next_at=call.next_at if call.state == "waiting" and call.tries else None,
        delivered_at=call.delivered_at,
        error=call.error,
    )


def job_document(
    record: Record,
    images: Sequence[Kept] = (),
    *,
    now: float,
    progress: float | None = None,
    eta_s: float | None = None,
    position: int | None = None,
    calls: Sequence[Call] = (),
) -> JobDocument:
    """A job as clients see it."""
    started, ended = record.started_at, record.ended_at
    return JobDocument(
        id=record.id,
        kind=record.kind,
        state=record.state,
        owner=record.owner,
        asynchronous=record.durable,
        priority=record.priority,
        position=position,
        progress=1.0 if record.state == "done" else progress or 0.0,
        eta_s=eta_s,
        model=record.model,
        version=record.version,
        submitted_at=record.submitted_at,
        started_at=started,
        ended_at=ended,
        wait_s=(started or ended or now) - record.submitted_at,
        run_s=None if started is None else (ended or now) - started,
        attempts=record.attempts,
        http_status=record.http_status,
        error=JobError(code=record.error_code or "", detail=record.error) if record.error else None,
        images=[image_document(one) for one in images],
        webhooks=[_webhook_document(call) for call in calls],
        links=_links(f"/jobs/{record.id}"),
    )


def _links(path: str) -> JobLinks:
    return JobLinks(self=path, request=f"{path}/request", result=f"{path}/result", events=f"{path}/events")


def accepted(record: Record) -> dict[str, Any]:
    """What is answered to whoever does not wait."""
    return job_document(record, now=record.submitted_at).model_dump()
