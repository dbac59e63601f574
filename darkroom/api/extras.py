"""`/sdapi/v1/extra-single-image` and `/extra-batch-images`: enlarging pictures that are finished, and restoring faces.

Pictures are worked on in threads, which ask the engine for what takes a network; nothing is saved.
"""

import html
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from PIL import Image

from darkroom.api.context import Context, Series, Shared
from darkroom.api.fetch import with_pictures
from darkroom.api.jobs.attempt import admit, is_repeatable, note_engine_job, options_of
from darkroom.api.models import Extras, ExtrasBatch, ExtrasSingle
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, insist, printable, while_connected
from darkroom.api.upscaling import Shelf, Workbench, missing_restorer
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import decode_base64, encode_image, fitting, to_base64
from darkroom.images.metadata import read_notes
from darkroom.images.postprocessing import Upscaling, upscale
from darkroom.images.upscale import Enlarge
from darkroom.jobs.spec import FaceRestoration
from darkroom.options.values import OptionValues
from darkroom.settings import Settings

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])

_NOTES_KEY = "postprocessing"

Restorer = Literal["GFPGAN", "CodeFormer"]
RESTORERS: tuple[Restorer, ...] = ("GFPGAN", "CodeFormer")

UPSCALE = "Upscale"
STEPS: tuple[str, ...] = (UPSCALE, *RESTORERS)
"""What can be done with a picture, in order."""

_VISIBILITIES: Mapping[Restorer, str] = MappingProxyType(
    {"GFPGAN": "gfpgan_visibility", "CodeFormer": "codeformer_visibility"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A request in work: what it asks for, under which options, and where the engine is asked."""

    wire: Extras
    settings: Settings
    options: OptionValues
    bench: Workbench
    unable: frozenset[str] = field(default_factory=frozenset)


@router.post(
    "/extra-single-image",
    response_model=dict[str, Any],
    operation_id="extras_single_image_api_sdapi_v1_extra_single_image_post",
)
async def extra_single_image(
    wire: ExtrasSingle, request: Request, context: Shared, response: Response
) -> dict[str, Any] | Response:
    """Enlarge a picture, and restore the faces in it."""
    unable = _tell(wire, context, response)
    plan = await _plan(wire, request, context)
    wire = await with_pictures(wire, context)
    sources = [("image", wire.image)]
    await _admit(request, context, sources, plan)
    try:
        [(shown, data)] = await while_connected(request, _work_on(wire, request, context, unable, sources))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return {"html_info": shown, "image": data}


@router.post(
    "/extra-batch-images",
    response_model=dict[str, Any],
    operation_id="extras_batch_images_api_sdapi_v1_extra_batch_images_post",
)
async def extra_batch_images(
    wire: ExtrasBatch, request: Request, context: Shared, response: Response
) -> dict[str, Any] | Response:
    """Enlarge several pictures, one after another. An interrupt leaves out those that were not begun."""
    unable = _tell(wire, context, response)
    most = context.settings.max_images
    if len(wire.pictures) > most:
        raise LimitExceeded("imageList", f"{len(wire.pictures)} pictures", f"at most {most}")
    plan = await _plan(wire, request, context) if wire.pictures else None  # A1111: nobody asks for an upscaler then
    wire = await with_pictures(wire, context)
    if not context.running():
        context.controls.begin()
    sources = [(f"imageList[{place}].data", entry.data) for place, entry in enumerate(wire.pictures)]
    await _admit(request, context, sources, plan)
    try:
        made = await while_connected(request, _work_on(wire, request, context, unable, sources))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return {"html_info": made[-1][0] if made else "", "images": [data for _, data in made]}


async def _plan(wire: Extras, request: Request, context: Context) -> Upscaling | None:
    """How the pictures are to be enlarged, before any is fetched. Raises UnknownUpscaler, NotInstalled."""
    options = options_of(request, context)
    if UPSCALE not in order(options):
        return None
    find = partial(Workbench(context.engine).find, options)
    return await to_thread.run_sync(make_plan, wire, find, limiter=context.workers)


async def _admit(request: Request, context: Context, sources: list[tuple[str, str]], plan: Upscaling | None) -> None:
    """The request is in order once its pictures can be read and enlarged. Raises BadRequest and its kinds."""
    if is_repeatable(request):
        for name, data in sources:
            await to_thread.run_sync(_check, context.settings, name, data, plan, limiter=context.workers)
    admit(request, context.options.snapshot())


def _check(settings: Settings, name: str, data: str, plan: Upscaling | None) -> None:
    picture = decode_base64(data, field=name, max_pixels=settings.max_image_pixels)
    if plan is not None:
        _check_size(plan, picture, settings)


async def _work_on(
    wire: Extras, request: Request, context: Context, unable: frozenset[str], sources: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """What was done as HTML, and the new picture as base64, for every field and its picture.

    An interrupt ends the list. A picture that was skipped is missing from it, unless it is the only one.
    """
    made: list[tuple[str, str]] = []
    series = Series(task_id="", began=time.time(), planned=len(sources))
    context.series.append(series)
    bench = Workbench(
        context.engine, seen=series.job_ids, note=partial(note_engine_job, request), standing=context.standing
    )
    options = options_of(request, context)
    work = _Work(wire=wire, settings=context.settings, options=options, bench=bench, unable=unable)
    try:
        for name, data in sources:
            if made and (bench.interrupted or context.controls.interrupted):
                break
            bench.skipped = False
            done = await to_thread.run_sync(_process, work, name, data, limiter=context.waiters)
            series.finished += 1
            if not bench.skipped or len(sources) == 1:
                made.append(done)
    finally:
        bench.drop()
        context.series.remove(series)
    return made


def _process(work: _Work, field_name: str, data: str) -> tuple[str, str]:
    """One picture. Raises BadImage, BadRequest, UnknownUpscaler, and what the engine raises."""
    options = work.options
    source = decode_base64(data, field=field_name, max_pixels=work.settings.max_image_pixels)
    text, items = read_notes(source)
    picture = source if source.mode in {"RGB", "RGBA"} else source.convert("RGB")
    notes: dict[str, str] = {}
    for step in order(options):
        picture, said = _enlarged(work, picture) if step == UPSCALE else _restored(work, picture, step)
        notes.update(said)
    line = ", ".join(f"{key}: {value}" for key, value in notes.items())
    kept = {**({"parameters": text} if text else {}), **items, _NOTES_KEY: line}
    wanted = fitting(np.asarray(picture), options.samples_format)
    file = encode_image(picture, wanted, notes=kept, quality=options.jpeg_quality)
    return f"<p>{html.escape(line)}</p>", to_base64(file)


def order(options: OptionValues) -> list[str]:
    """The steps as the options order them: those that they name first, none that they leave out."""
    named = [step for step in options.postprocessing_operation_order if step in STEPS]
    ordered = dict.fromkeys((*named, *STEPS))
    return [step for step in ordered if step not in options.postprocessing_disable_in_extras]


def _enlarged(work: _Work, picture: Image.Image) -> tuple[Image.Image, Mapping[str, str]]:
    plan = make_plan(work.wire, lambda name, value: work.bench.find(work.options, name, value))
    if plan is None:
        return picture, {}
    _check_size(plan, picture, work.settings)
    return upscale(picture, plan)


def _restored(work: _Work, picture: Image.Image, step: str) -> tuple[Image.Image, Mapping[str, str]]:
    """The picture with its faces restored, as visible as was asked for."""
    name = next(name for name in RESTORERS if name == step)
    visibility: float = getattr(work.wire, _VISIBILITIES[name])
    if visibility == 0 or name in work.unable:
        return picture, {}
    notes = {f"{name} visibility": str(round(visibility, 3))}
    if name == "CodeFormer":
        notes["CodeFormer weight"] = str(round(work.wire.codeformer_weight, 3))
    restoration = FaceRestoration(
        restorer=name, weight=work.wire.codeformer_weight, unload=work.options.face_restoration_unload
    )
    restored = work.bench.restore_faces(picture, restoration)
    return (Image.blend(picture, restored, visibility) if visibility < 1 else restored), notes


Find = Callable[[str, str], Enlarge | None]


def make_plan(wire: Extras, find: Find) -> Upscaling | None:
    """How a request wants its pictures enlarged; None for not at all. `find` gives the function of an upscaler, for a
    field and its value. Raises UnknownUpscaler, BadRequest.

    A1111: without a first upscaler the second is not asked, and its name may be anything.
    """
    first = find("upscaler_1", wire.upscaler_1)
    if first is None:
        return None
    upscalers = [(wire.upscaler_1, first)]
    second = find("upscaler_2", wire.upscaler_2) if wire.upscaler_2 else None
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


def _check_size(plan: Upscaling, picture: Image.Image, settings: Settings) -> None:
    """Both what is computed and what is answered must fit. Raises LimitExceeded, BadRequest."""
    name = "upscaling_resize" if plan.size is None else "upscaling_resize_w x upscaling_resize_h"
    asked = plan.factor if plan.size is None else f"{plan.size[0]}x{plan.size[1]}"
    for width, height in (plan.sides(picture), plan.size or (0, 0)):
        if width * height > settings.max_image_pixels:
            raise LimitExceeded(name, asked, f"at most {settings.max_image_pixels} pixels, this makes {width}x{height}")
    if min(plan.sides(picture)) < 1:
        raise BadRequest(name, asked, "sides of at least 8 pixels must come of it")


def _tell(wire: Extras, context: Context, response: Response) -> frozenset[str]:
    """Say what has no effect, why, and what was read otherwise; gives the restorers that have no file.

    Raises NotStrict.
    """
    missing = dict(_missing(wire, context.engine))
    ignored = [_VISIBILITIES[name] for name in missing]
    notes = (*wire.leniencies, *missing.values())
    insist(context.settings, (*ignored, *notes))
    if notes:
        log.warning("replaced: %s", printable(notes))
        response.headers["X-Darkroom-Warnings"] = printable(notes)
    if ignored:
        response.headers["X-Darkroom-Ignored"] = printable(ignored)
    return frozenset(missing)


def _missing(wire: Extras, shelf: Shelf) -> Iterator[tuple[Restorer, str]]:
    for name, visibility in _VISIBILITIES.items():
        lack = missing_restorer(name, shelf)
        if getattr(wire, visibility) > 0 and lack:
            yield name, lack
