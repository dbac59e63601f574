"""`/sdapi/v1/progress`, `/interrupt`, `/skip`: what the running jobs do, and stopping them."""

import time
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query

from darkroom.api.context import Context, Shared
from darkroom.api.results import timestamp
from darkroom.coerce import Bool
from darkroom.engine.client import JobStatus
from darkroom.images.codecs import encode, to_base64

router = APIRouter(prefix="/sdapi/v1", tags=["progress"])

_HEAD_START = 0.01
"""A1111: progress never reads exactly zero while a job runs."""


@router.get("/progress", operation_id="progressapi_sdapi_v1_progress_get")
async def progress(
    context: Shared, skip_current_image: Annotated[Bool, Query(description="Leave the live picture out.")] = False
) -> dict[str, Any]:
    """Where the job that was submitted first stands. Idle is exactly progress 0 and job_count 0."""
    running, queued = context.running(), context.queued()
    current = next(iter((*running, *queued)), None)
    fraction = _fraction(current)
    return {
        "progress": min(fraction, 1.0),
        "eta_relative": _eta(current, fraction),
        "state": _state(context, current),
        "current_image": None if skip_current_image or not running else await _live_picture(context, running[0]),
        "textinfo": None,
    }


@router.post("/interrupt", operation_id="interruptapi_sdapi_v1_interrupt_post")
def interrupt(context: Shared) -> dict[str, Any]:
    """Stop the running jobs, or the first that waits; each answers with the pictures it has."""
    context.controls.interrupted = True
    for job in context.running() or context.queued()[:1]:
        context.engine.interrupt(job.job_id)
    return {}


@router.post("/skip", operation_id="skip_sdapi_v1_skip_post")
def skip(context: Shared) -> None:
    """Stop the running batches; the next ones of their jobs go on."""
    context.controls.skipped = True
    for job in context.running():
        context.engine.skip(job.job_id)


def _fraction(job: JobStatus | None) -> float:
    """Progress as A1111 counts it: finished batches, and the share of the present one; not capped."""
    if job is None:
        return 0.0
    if job.state == "queued":
        return _HEAD_START
    count = job.spec.n_iter
    return _HEAD_START + job.iteration / count + job.step / max(job.steps, 1) / count


def _eta(job: JobStatus | None, fraction: float) -> float:
    """Seconds left, from the time used so far."""
    if job is None:
        return 0.0
    elapsed = time.time() - (job.started_at or job.submitted_at)
    return elapsed / fraction - elapsed


def _state(context: Context, job: JobStatus | None) -> dict[str, Any]:
    ended = [status for status in context.engine.jobs() if status.ended_at is not None]
    shown = job or max(ended, key=lambda status: status.ended_at or 0.0, default=None)
    return {
        "skipped": job.skipped if job else context.controls.skipped,
        "interrupted": job.interrupted if job else context.controls.interrupted,
        "stopping_generation": False,
        "job": _name(job),
        "job_count": 0 if job is None else -1 if job.state == "queued" else job.spec.n_iter,
        "job_timestamp": timestamp(shown),
        "job_no": _finished(shown),
        "sampling_step": job.step if job else 0,
        "sampling_steps": shown.steps if shown else 0,
    }


def _name(job: JobStatus | None) -> str:
    if job is None:
        return ""
    if job.spec.n_iter > 1:
        return f"Batch {job.iteration + 1} out of {job.spec.n_iter}"
    return f"scripts_{job.spec.kind}"


def _finished(job: JobStatus | None) -> int:
    """Batches done so far. A1111: the number of the last job stays after its end."""
    if job is None:
        return 0
    return job.spec.n_iter if job.state == "done" else job.iteration


async def _live_picture(context: Context, job: JobStatus) -> str | None:
    """The state of a running job's first picture, made anew only every few steps."""
    options = context.options.snapshot()
    every = options.show_progress_every_n_steps
    if not options.live_previews_enable or every < 0 or job.step < max(every, 1):
        return None
    key = (job.job_id, job.iteration, job.step // max(every, 1))
    if context.preview.key != key:
        picture = await context.engine.preview(job.job_id)
        if picture is None:
            return None
        data = await to_thread.run_sync(lambda: encode(picture, options.samples_format, quality=options.jpeg_quality))
        context.preview.key, context.preview.image = key, to_base64(data)
    return context.preview.image
