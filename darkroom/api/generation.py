"""`/sdapi/v1/txt2img` and `/img2img`: one request, one job, one answer with all its pictures."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from darkroom.api.context import Context, Shared
from darkroom.api.convert import Prepared, to_spec
from darkroom.api.fetch import with_pictures
from darkroom.api.infotext import fill
from darkroom.api.jobs.attempt import drawn_seeds, note_engine_job, options_of
from darkroom.api.models import Generated, Generation, Img2Img, Txt2Img
from darkroom.api.results import answer
from darkroom.api.running import (
    CLIENT_CLOSED_REQUEST,
    ClientGoneError,
    insist,
    job_headers,
    printable,
    run_job,
    while_connected,
)
from darkroom.api.script_runs import run_script
from darkroom.api.scripts import Chosen, check_always_on, choose_script
from darkroom.api.upscaling import Workbench
from darkroom.options.values import OptionValues

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sdapi/v1", tags=["generation"])

_DOCUMENTED: dict[int | str, dict[str, Any]] = {200: {"model": Generated}}


@router.post("/txt2img", responses=_DOCUMENTED, operation_id="text2imgapi_sdapi_v1_txt2img_post")
async def txt2img(wire: Txt2Img, request: Request, context: Shared) -> Response:
    """Make pictures from a text."""
    return await _generate(wire, request, context)


@router.post("/img2img", responses=_DOCUMENTED, operation_id="img2imgapi_sdapi_v1_img2img_post")
async def img2img(wire: Img2Img, request: Request, context: Shared) -> Response:
    """Make pictures from pictures, or repaint what a mask covers."""
    return await _generate(wire, request, context)


async def _generate(wire: Generation, request: Request, context: Context) -> Response:
    options, settings, limiter = options_of(request, context), context.settings, context.workers
    checkpoints = context.engine.checkpoints()
    filled = await to_thread.run_sync(fill, wire, options, settings, checkpoints, limiter=limiter)
    notes = (*wire.leniencies, *filled.warnings, *check_always_on(filled.wire, context))
    insist(settings, notes)
    wire = filled.wire
    chosen = choose_script(wire, context)
    try:
        fetched = await while_connected(request, with_pictures(wire, context))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if chosen:
        return await _run_script(fetched, chosen, notes, request, context)
    try:
        again = fetched.model_copy(update=drawn_seeds(request))
        prepared = await while_connected(request, _prepare(again, request, context, options))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    prepared = replace(prepared, warnings=(*notes, *prepared.warnings))
    try:
        event = await run_job(request, context, prepared)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    body = await to_thread.run_sync(answer, wire, prepared, event, settings, limiter=limiter)
    return Response(body, media_type="application/json", headers=job_headers(prepared, event.status.job_id))


async def _prepare(wire: Generation, request: Request, context: Context, options: OptionValues) -> Prepared:
    """The job of a request. Where its start picture may have to be enlarged, the engine is waited for."""
    engine = context.engine
    bench = Workbench(engine, task_id=wire.task_id, note=partial(note_engine_job, request), standing=context.standing)
    waits = isinstance(wire, Img2Img) and (options.upscaler_for_img2img or wire.override_settings)
    limiter = context.waiters if waits else context.workers
    try:
        return await to_thread.run_sync(
            to_spec, wire, options, context.settings, engine.checkpoints(), engine, bench, limiter=limiter
        )
    finally:
        bench.drop()


async def _run_script(
    wire: Generation, chosen: Chosen, notes: tuple[str, ...], request: Request, context: Context
) -> Response:
    try:
        told = await run_script(request, context, wire, chosen)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if notes:
        log.warning("job %s: replaced: %s", told.job_id, printable(notes))
    headers = job_headers(replace(told, warnings=(*notes, *told.warnings)), told.job_id)
    return Response(told.body, media_type="application/json", headers=headers)
