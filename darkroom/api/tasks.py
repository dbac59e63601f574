"""`/internal/progress` and `/internal/pending-tasks`: where one named job stands, as A1111's web UI asks.

A task is a job under the name that its client chose, or one made of its kind and id.
"""

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from darkroom.api.chores import task_of
from darkroom.api.context import Context, Shared
from darkroom.api.models import Wire
from darkroom.api.progress import series_share
from darkroom.coerce import Bool, Int, Text
from darkroom.engine.client import JobStatus
from darkroom.images.codecs import MEDIA_TYPES

router = APIRouter(prefix="/internal", tags=["progress"])

_REMEMBERED = 16
"""A1111: so many tasks are known as completed."""


class TaskQuestion(Wire):
    """Which task, and which of its live pictures the client has already."""

    id_task: Text | None = Field(None, description="The name of the task: a request's force_task_id.")
    id_live_preview: Int = Field(-1, description="Number of the live picture that the client has; -1 for none.")
    live_preview: Bool = Field(True, description="Send the live picture if it is another one.")


def task_name(job: JobStatus) -> str:
    """What a job is called as a task."""
    return job.spec.task_id or f"task({job.spec.kind}-{job.job_id[:7].upper()})"


@router.get("/pending-tasks", operation_id="get_pending_tasks_internal_pending_tasks_get")
def pending_tasks(context: Shared) -> dict[str, Any]:
    """The tasks that wait or run, in order of submission."""
    jobs = [task_name(job) for job in (*context.running(), *context.queued())]
    chores = [chore.task_id for chore in context.chores.present]
    names = list(dict.fromkeys([*(series.task_id for series in context.series if series.task_id), *jobs, *chores]))
    return {"size": len(names), "tasks": names}


@router.post("/progress", operation_id="progressapi_internal_progress_post")
async def progress(wire: TaskQuestion, context: Shared) -> dict[str, Any]:
    """Where one task stands."""
    running = context.running()
    job = _find(running, wire.id_task)
    series = next((one for one in context.series if wire.id_task and one.task_id == wire.id_task), None)
    if job is None and series is None and (chore := context.chores.find(wire.id_task)):
        return task_of(chore)
    if job is None and series is None:
        return _not_running(context, wire.id_task)
    fraction = series_share(series, running) if series else job.fraction if job else 0.0
    began = series.began if series else (job.started_at or job.submitted_at) if job else time.time()
    elapsed = time.time() - began
    number, picture = await _live_picture(context, job, wire) if job else (wire.id_live_preview, None)
    return {
        "active": True,
        "queued": False,
        "completed": False,
        "progress": min(fraction, 1.0),
        "eta": elapsed / fraction - elapsed if fraction > 0 else None,
        "live_preview": picture,
        "id_live_preview": number,
        "textinfo": None,
    }


def _find(jobs: Sequence[JobStatus], name: str | None) -> JobStatus | None:
    return next((job for job in jobs if name is not None and task_name(job) == name), None)


def _not_running(context: Context, name: str | None) -> dict[str, Any]:
    queued = context.queued()
    waiting = _find(queued, name)
    ended = [job for job in context.jobs() if job.ended_at is not None]
    completed = _find(ended[-_REMEMBERED:], name) is not None or name in context.chores.ended
    return {
        "active": False,
        "queued": waiting is not None,
        "completed": waiting is None and completed,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": f"In queue: {queued.index(waiting) + 1}/{len(queued)}" if waiting else "Waiting...",
    }


async def _live_picture(context: Context, job: JobStatus, wire: TaskQuestion) -> tuple[int, str | None]:
    """The number of the live picture and the picture as a data URI, unless the client has it already."""
    if not wire.live_preview:
        return wire.id_live_preview, None
    options = context.options.snapshot()
    kind = options.live_previews_image_format
    number, picture = await context.live.show(context.engine, job, options, kind)
    if picture is None or number == wire.id_live_preview:
        return wire.id_live_preview, None
    return number, f"data:{MEDIA_TYPES[kind]};base64,{picture}"
