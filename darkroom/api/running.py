"""Runs one job for one connection: submits it, waits, and drops it when nobody is there any more."""

import asyncio
import logging
from collections.abc import Sequence

from fastapi import Request

from darkroom.api.context import Context
from darkroom.api.convert import Prepared
from darkroom.engine.client import Event, result

log = logging.getLogger(__name__)

_HEADER_BYTES = 2000
CLIENT_CLOSED_REQUEST = 499


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


async def run_job(request: Request, context: Context, prepared: Prepared) -> Event:
    """The job's last event; a cancelled one has no pictures. Raises ClientGoneError, Busy, what the job failed with."""
    was_idle = not context.running()
    job_id = context.engine.submit(prepared.spec)
    if was_idle:
        context.controls.begin()
    for kind, notes in (("ignored", prepared.ignored), ("replaced", prepared.warnings)):
        if notes:
            log.warning("job %s: %s: %s", job_id, kind, printable(notes))
    work = asyncio.ensure_future(result(context.engine, job_id))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            log.info("job %s: the client is gone", job_id)
            raise ClientGoneError
        return work.result()
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
            context.engine.cancel(job_id)


def job_headers(prepared: Prepared, job_id: str) -> dict[str, str]:
    """What an answer says beside its body: the job, what had no effect, what was replaced."""
    headers = {"X-Job-Id": job_id}
    if prepared.ignored:
        headers["X-Darkroom-Ignored"] = printable(prepared.ignored)
    if prepared.warnings:
        headers["X-Darkroom-Warnings"] = printable(prepared.warnings)
    return headers


def printable(notes: Sequence[str]) -> str:
    """Notes as the value of a header: ASCII, one line, not endless, whatever clients put into names."""
    text = ", ".join("".join(c if " " <= c <= "~" else "?" for c in note) for note in notes)
    return text if len(text) <= _HEADER_BYTES else text[: _HEADER_BYTES - 3] + "..."


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
