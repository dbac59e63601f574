"""`/sdapi/v1/interrogate`: describing a picture in words, by networks on the engine's device, between two batches."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from PIL import Image

from darkroom.api.context import Shared
from darkroom.api.descriptions import DESCRIBERS, describe
from darkroom.api.fetch import with_pictures
from darkroom.api.jobs.attempt import admit, options_of
from darkroom.api.models import Interrogate
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, insist, printable, while_connected
from darkroom.errors import DarkroomError
from darkroom.images.codecs import decode_base64

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])


class UnknownDescriber(DarkroomError):
    """A describing model that nobody knows."""

    http_status = 404
    code = "unknown_name"


@router.post("/interrogate", operation_id="interrogateapi_sdapi_v1_interrogate_post", response_model=None)
async def interrogate(wire: Interrogate, request: Request, context: Shared, response: Response) -> Any:
    """Describe a picture: `clip` as a sentence, `deepdanbooru` as tags. Refused where the network has no file here."""
    wire = await with_pictures(wire, context)
    read = partial(_read, wire.image, context.settings.max_image_pixels)
    picture = await to_thread.run_sync(read, limiter=context.workers)
    describer = next((name for name in DESCRIBERS if name == wire.model), None)
    if describer is None:
        raise UnknownDescriber("Model not found")
    options = options_of(request, context)
    admit(request, options)
    try:
        caption, found = await while_connected(request, describe(picture, describer, context, options))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    insist(context.settings, found.warnings)
    if found.warnings:
        response.headers["X-Darkroom-Warnings"] = printable(found.warnings)
    return {"caption": caption}


def _read(data: str, max_pixels: int) -> Image.Image:
    return decode_base64(data, field="image", max_pixels=max_pixels).convert("RGB")
