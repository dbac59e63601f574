"""`/sdapi/v1/txt2img` and `/img2img`: one request, one job, one answer with all its pictures."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from darkroom.api.context import Context, Shared
from darkroom.api.convert import to_spec
from darkroom.api.models import Generated, Generation, Img2Img, Txt2Img
from darkroom.api.results import answer
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, job_headers, run_job

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
    options, settings, limiter = context.options, context.settings, context.workers
    checkpoints = context.engine.checkpoints()
    prepared = await to_thread.run_sync(to_spec, wire, options.snapshot(), settings, checkpoints, limiter=limiter)
    try:
        event = await run_job(request, context, prepared)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    body = await to_thread.run_sync(answer, wire, prepared, event, options.snapshot(), settings, limiter=limiter)
    return Response(body, media_type="application/json", headers=job_headers(prepared, event.status.job_id))
