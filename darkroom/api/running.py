"""Runs one job for one connection: submits it, waits, and drops it when nobody is there any more."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import Request, WebSocket

from darkroom.api.context import Context
from darkroom.api.convert import Prepared
from darkroom.api.jobs.attempt import admit, note_engine_job, note_pictures
from darkroom.api.limits import charge
from darkroom.engine.client import Event, result
from darkroom.errors import NotStrict
from darkroom.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

_HEADER_BYTES = 2000
CLIENT_CLOSED_REQUEST = 499


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


async def run_job(request: Request, context: Context, prepared: Prepared) -> Event:
    """The job's last event; a cancelled one has no pictures. Raises ClientGoneError, Busy, OverLimit, what the job
    failed with.
    """
    await charge(request, prepared.spec)
    admit(request, prepared.served, seeds=chosen_seeds(prepared), model=prepared.checkpoint.title)
    was_idle = not context.running()
    job_id = submit(context, prepared)
    note_engine_job(request, job_id)
    if was_idle:
        context.controls.begin()
    event = await while_connected(request, finish_job(context, job_id))
    note_pictures(request, event)
    return event


def chosen_seeds(prepared: Prepared) -> dict[str, int]:
    """What a request must say to get the seeds that were drawn for it."""
    return {"seed": prepared.seeds[0], "subseed": prepared.subseeds[0]}


def submit(context: Context, prepared: Prepared) -> str:
    """Hand a job to the engine and give its id; the log hears what has no effect in it. Raises Busy, NotStrict."""
    insist(context.settings, (*prepared.ignored, *prepared.warnings))
    job_id = context.engine.submit(prepared.spec, context.standing)
    for kind, notes in (("ignored", prepared.ignored), ("replaced", prepared.warnings)):
        if notes:
            log.warning("job %s: %s: %s", job_id, kind, printable(notes))
    return job_id


def insist(settings: Settings, notes: Sequence[str]) -> None:
    """Where the operator wants that, let nothing pass with a mere note. Raises NotStrict."""
    if settings.strict and notes:
        raise NotStrict(f"{printable(notes)}; this server serves only what it can serve as it stands (--strict)")


async def finish_job(context: Context, job_id: str) -> Event:
    """The job's last event. Where nobody waits for it any more, the job is dropped."""
    try:
        return await result(context.engine, job_id)
    except asyncio.CancelledError:
        log.info("job %s is dropped", job_id)
        context.engine.cancel(job_id)
        raise


async def while_connected(request: Request | WebSocket, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, as long as there is a client to give it to. Raises ClientGoneError, and what `work` raises."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


class Noted(Protocol):
    """Something that was done, with what had no effect and what was replaced."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """What had no effect."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was replaced, or else is worth knowing."""


def job_headers(prepared: Noted, job_id: str) -> dict[str, str]:
    """What an answer says beside its body: the job, what had no effect, what was replaced."""
    headers = {"X-Job-Id": job_id}
    if prepared.ignored:
        headers["X-Darkroom-Ignored"] = printable(prepared.ignored)
    if prepared.warnings:
        headers["X-Darkroom-Warnings"] = printable(prepared.warnings)
    return headers


def printable(notes: Sequence[str]) -> str:
    """Notes as the value of a header: ASCII, one line, no blank at its ends, not endless, whatever clients name."""
    text = ", ".join("".join(c if " " <= c <= "~" else "?" for c in note) for note in notes).strip()
    return text if len(text) <= _HEADER_BYTES else text[: _HEADER_BYTES - 3] + "..."


async def _disconnected(request: Request | WebSocket) -> None:
    while (await request.receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass
