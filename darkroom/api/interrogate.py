"""`/sdapi/v1/interrogate`: describing a picture in words. No describing model is part of this installation."""

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Response

from darkroom.api.context import Shared
from darkroom.api.fetch import with_pictures
from darkroom.api.models import Interrogate
from darkroom.errors import DarkroomError
from darkroom.images.codecs import decode_base64

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])

_MODELS = ("clip", "deepdanbooru")


class UnknownDescriber(DarkroomError):
    """A describing model that nobody knows."""

    http_status = 404
    code = "unknown_name"


class NotInstalled(DarkroomError):
    """A capability that this installation does not have."""

    http_status = 501
    code = "not_installed"


@router.post("/interrogate", operation_id="interrogateapi_sdapi_v1_interrogate_post")
async def interrogate(wire: Interrogate, context: Shared, response: Response) -> dict[str, str]:
    """Describe a picture: `clip` as a sentence, `deepdanbooru` as tags.

    A1111: where CLIP cannot work the answer is a caption that ends in `<error>`.
    """
    wire = await with_pictures(wire, context)
    decode = partial(decode_base64, wire.image, field="image", max_pixels=context.settings.max_image_pixels)
    await to_thread.run_sync(decode, limiter=context.workers)
    if wire.model not in _MODELS:
        raise UnknownDescriber("Model not found")
    if wire.model == "deepdanbooru":
        raise NotInstalled("model: 'deepdanbooru' is not installed")
    response.headers["X-Darkroom-Warnings"] = "model 'clip' is not installed"
    return {"caption": "<error>"}
