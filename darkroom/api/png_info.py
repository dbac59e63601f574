"""`/sdapi/v1/png-info`: the generation text that a picture carries."""

from typing import Any

from fastapi import APIRouter

from darkroom.api.context import Shared
from darkroom.api.models import PngInfo
from darkroom.images.codecs import decode_base64
from darkroom.images.metadata import read_notes
from darkroom.jobs.infotext import read

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])


@router.post("/png-info", operation_id="pnginfoapi_sdapi_v1_png_info_post")
def png_info(wire: PngInfo, context: Shared) -> dict[str, Any]:
    """The text as it is, what it says, and the picture's other notes."""
    picture = decode_base64(wire.image, field="image", max_pixels=context.settings.max_image_pixels)
    text, items = read_notes(picture)
    return {"info": text, "items": items, "parameters": read(text)}
