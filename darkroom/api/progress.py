"""`/sdapi/v1/progress`, `/interrupt`, `/skip`: what the running jobs do, and stopping them."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query

from darkroom.api.chores import progress_of
from darkroom.api.context import Context, Series, Shared
from darkroom.api.results import timestamp
from darkroom.coerce import Bool
from darkroom.engine.client import JobStatus
from darkroom.jobs.retouching import RetouchSpec

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
    series = context.find_series(current)
    if current is None and series is None and context.chores.running:
        return progress_of(context.chores.running[0], _HEAD_START)
    fraction = _HEAD_START + series_share(series, running) if series else _fraction(current)
    return {
        "progress": min(fraction, 1.0),
        "eta_relative": _series_eta(series, fraction) if series else _eta(current, fraction),
        "state": _state(context, current) | (_series_state(series) if series else {}),
        "current_image": None if skip_current_image or not running else await _live_picture(context, running[0]),
        "textinfo": None,
    }


@router.post("/interrupt", operation_id="interruptapi_sdapi_v1_interrupt_post")
def interrupt(context: Shared) -> dict[str, Any]:
    """Stop the running jobs, or the first that waits; each answers with the pictures it has."""
    context.controls.interrupted = True
    context.controls.stops += 1
    for chore in context.chores.present:
        chore.stop.set()
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
    return _HEAD_START + (_finished(job) + job.step / max(job.steps, 1)) / _planned(job)


def _eta(job: JobStatus | None, fraction: float) -> float:
    """Seconds left, from the time used so far."""
    if job is None:
        return 0.0
    elapsed = time.time() - (job.started_at or job.submitted_at)
    return elapsed / fraction - elapsed


def _state(context: Context, job: JobStatus | None) -> dict[str, Any]:
    ended = [status for status in context.jobs() if status.ended_at is not None]
    shown = job or max(ended, key=lambda status: status.ended_at or 0.0, default=None)
    return {
        "skipped": job.skipped if job else context.controls.skipped,
        "interrupted": job.interrupted if job else context.controls.interrupted,
        "stopping_generation": False,
        "job": _name(job),
        "job_count": 0 if job is None else -1 if job.state == "queued" else _planned(job),
        "job_timestamp": timestamp(shown),
        "job_no": _finished(shown),
        "sampling_step": job.step if job else 0,
        "sampling_steps": shown.steps if shown else 0,
    }


def _name(job: JobStatus | None) -> str:
    if job is None:
        return ""
    if isinstance(job.spec, RetouchSpec):
        return job.spec.title
    if job.spec.n_iter > 1:
        return f"Batch {job.iteration + 1} out of {job.spec.n_iter}"
    return f"scripts_{job.spec.kind}"


def _finished(job: JobStatus | None) -> int:
    """Passes done so far over all batches. A1111: the number of the last job stays after its end."""
    if job is None:
        return 0
    return _planned(job) if job.state == "done" else job.iteration * job.spec.passes + job.part


def _planned(job: JobStatus) -> int:
    """A1111: a batch with hires fix counts as two jobs."""
    return job.spec.n_iter * job.spec.passes


def series_share(series: Series, running: Sequence[JobStatus]) -> float:
    """How much of a script is done, 0..1: its finished batches and the shares of those in work."""
    share = sum(job.fraction * _planned(job) for job in running if job.job_id in series.job_ids)
    return (series.finished + share) / max(series.planned, 1)


def _series_eta(series: Series, fraction: float) -> float:
    elapsed = time.time() - series.began
    return elapsed / fraction - elapsed


def _series_state(series: Series) -> dict[str, Any]:
    number = min(series.finished + 1, series.planned)
    return {
        "job": f"{number} out of {series.planned}",
        "job_count": max(series.planned, 1),
        "job_no": series.finished,
    }


async def _live_picture(context: Context, job: JobStatus) -> str | None:
    options = context.options.snapshot()
    _, picture = await context.live.show(context.engine, job, options, options.samples_format)
    return picture
