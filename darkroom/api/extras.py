"""`/sdapi/v1/extra-single-image` and `/extra-batch-images`: enlarging pictures that are finished.

Pictures are worked on in threads; nothing is saved. Faces cannot be restored here yet, and an answer says so.
"""

import html
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Response
from PIL import Image

from darkroom.api.answers import UnknownUpscaler
from darkroom.api.context import Context, Shared
from darkroom.api.fetch import with_pictures
from darkroom.api.models import Extras, ExtrasBatch, ExtrasSingle
from darkroom.api.running import insist, printable
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import decode_base64, encode_image, fitting, to_base64
from darkroom.images.metadata import read_notes
from darkroom.images.postprocessing import Upscaling, upscale
from darkroom.images.upscale import BUILT_IN, NONE, RESAMPLERS, Enlarge
from darkroom.options.values import OptionValues
from darkroom.settings import Settings

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])

_NOTES_KEY = "postprocessing"


@router.post("/extra-single-image", operation_id="extras_single_image_api_sdapi_v1_extra_single_image_post")
async def extra_single_image(wire: ExtrasSingle, context: Shared, response: Response) -> dict[str, Any]:
    """Enlarge a picture."""
    _tell(wire, context, response)
    wire = await with_pictures(wire, context)
    options = context.options.snapshot()
    shown, data = await _in_thread(context, _process, wire, "image", wire.image, context.settings, options)
    return {"html_info": shown, "image": data}


@router.post("/extra-batch-images", operation_id="extras_batch_images_api_sdapi_v1_extra_batch_images_post")
async def extra_batch_images(wire: ExtrasBatch, context: Shared, response: Response) -> dict[str, Any]:
    """Enlarge several pictures, one after another. An interrupt leaves out those that were not begun."""
    _tell(wire, context, response)
    settings, options = context.settings, context.options.snapshot()
    if len(wire.pictures) > settings.max_images:
        raise LimitExceeded("imageList", f"{len(wire.pictures)} pictures", f"at most {settings.max_images}")
    wire = await with_pictures(wire, context)
    if not context.running():
        context.controls.begin()
    shown, images = "", list[str]()
    for place, entry in enumerate(wire.pictures):
        if context.controls.interrupted:
            break
        field = f"imageList[{place}].data"
        shown, data = await _in_thread(context, _process, wire, field, entry.data, settings, options)
        images.append(data)
    return {"html_info": shown, "images": images}


async def _in_thread(context: Context, function: Any, *arguments: Any) -> tuple[str, str]:
    result: tuple[str, str] = await to_thread.run_sync(function, *arguments, limiter=context.workers)
    return result


def _process(wire: Extras, field: str, data: str, settings: Settings, options: OptionValues) -> tuple[str, str]:
    """What was done as HTML, and the new picture as base64. Raises BadImage, BadRequest, UnknownUpscaler."""
    source = decode_base64(data, field=field, max_pixels=settings.max_image_pixels)
    text, items = read_notes(source)
    picture = source if source.mode in {"RGB", "RGBA"} else source.convert("RGB")
    notes: Mapping[str, str] = {}
    plan = make_plan(wire)
    if plan:
        _check_size(plan, picture, settings)
        picture, notes = upscale(picture, plan)
    line = ", ".join(f"{key}: {value}" for key, value in notes.items())
    kept = {**({"parameters": text} if text else {}), **items, _NOTES_KEY: line}
    wanted = fitting(np.asarray(picture), options.samples_format)
    file = encode_image(picture, wanted, notes=kept, quality=options.jpeg_quality)
    return f"<p>{html.escape(line)}</p>", to_base64(file)


def make_plan(wire: Extras) -> Upscaling | None:
    """How a request wants its pictures enlarged; None for not at all. Raises UnknownUpscaler.

    A1111: without a first upscaler the second is not asked, and its name may be anything.
    """
    first = _find(wire.upscaler_1, "upscaler_1")
    if first is None:
        return None
    upscalers = [(wire.upscaler_1, first)]
    second = _find(wire.upscaler_2, "upscaler_2")
    visibility = wire.extras_upscaler_2_visibility
    if second is not None and visibility > 0:
        upscalers.append((wire.upscaler_2, second))
    to_size = wire.resize_mode == 1
    return Upscaling(
        upscalers=tuple(upscalers),
        factor=wire.upscaling_resize,
        size=(wire.upscaling_resize_w, wire.upscaling_resize_h) if to_size else None,
        crop=to_size and wire.upscaling_crop,
        visibility=visibility,
    )


def _find(name: str, field: str) -> Enlarge | None:
    if name == NONE or (field == "upscaler_2" and not name):
        return None
    if name not in RESAMPLERS:
        raise UnknownUpscaler(field, name, BUILT_IN)
    return RESAMPLERS[name]


def _check_size(plan: Upscaling, picture: Image.Image, settings: Settings) -> None:
    """Both what is computed and what is answered must fit. Raises LimitExceeded, BadRequest."""
    field = "upscaling_resize" if plan.size is None else "upscaling_resize_w x upscaling_resize_h"
    asked = plan.factor if plan.size is None else f"{plan.size[0]}x{plan.size[1]}"
    for width, height in (plan.sides(picture), plan.size or (0, 0)):
        if width * height > settings.max_image_pixels:
            raise LimitExceeded(
                field, asked, f"at most {settings.max_image_pixels} pixels, this makes {width}x{height}"
            )
    if min(plan.sides(picture)) < 1:
        raise BadRequest(field, asked, "sides of at least 8 pixels must come of it")


def _tell(wire: Extras, context: Context, response: Response) -> None:
    """Say what had no effect, and what was read otherwise. Raises NotStrict."""
    ignored = list(_ignored(wire))
    insist(context.settings, (*ignored, *wire.leniencies))
    if wire.leniencies:
        log.warning("replaced: %s", printable(wire.leniencies))
        response.headers["X-Darkroom-Warnings"] = printable(wire.leniencies)
    if ignored:
        response.headers["X-Darkroom-Ignored"] = printable(ignored)


def _ignored(wire: Extras) -> Iterator[str]:
    if wire.gfpgan_visibility > 0:
        yield "gfpgan_visibility"
    if wire.codeformer_visibility > 0:
        yield "codeformer_visibility"
