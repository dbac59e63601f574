"""What a finished job becomes: pictures pasted together and encoded, texts, the `info` document.

Runs in worker threads; touches no event loop.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from darkroom.api.convert import Prepared
from darkroom.api.models import Generation, Img2Img
from darkroom.api.saving import save_all
from darkroom.api.shots import Shot
from darkroom.engine.client import Event, Finished, JobStatus
from darkroom.images import grid
from darkroom.images.codecs import Format, Pixels, encode, fitting, to_base64
from darkroom.jobs.infotext import TEXT_ONLY, VERSION, Shown, write
from darkroom.options.values import OptionValues
from darkroom.settings import Settings


def with_notes(prepared: Prepared, event: Event) -> Prepared:
    """The job with what its generation text shall say that turned out only while it ran."""
    found = {key: value for done in event.pictures for key, value in done.notes}
    said = tuple((key, str(value)) for key, value in found.items() if value is not None)
    spec = replace(prepared.spec, params=(*prepared.spec.params, *said))
    return replace(prepared, spec=spec, extra={**prepared.extra, **found})


def finish(prepared: Prepared, event: Event) -> list[Shot]:
    """The job's pictures in order, with what the mask kept pasted back."""
    ordered = sorted(event.pictures, key=lambda done: done.index)
    return [
        shot for done in ordered for shot in (*_asides(prepared, done), *_shots(prepared, done.picture, done.index))
    ]


def _asides(prepared: Prepared, done: Finished) -> Iterator[Shot]:
    """Pictures that were made on the way."""
    for suffix, picture in done.asides:
        yield Shot(
            picture=picture,
            text=describe(prepared, done.index),
            seed=prepared.spec.seeds[done.index],
            place=done.index,
            suffix=suffix,
            returned=False,
        )


def _shots(prepared: Prepared, picture: Pixels, index: int) -> Iterator[Shot]:
    """The picture and, behind it, its mask and what was made under that, where the options ask for them."""
    options, done = prepared.options, prepared.finishing.apply(picture, index)
    shot = Shot(picture=done.picture, text=describe(prepared, index), seed=prepared.spec.seeds[index], place=index)
    if done.uncorrected is not None:
        yield replace(shot, picture=done.uncorrected, suffix="-before-color-correction", returned=False)
    yield shot
    if done.mask is not None and (options.return_mask or options.save_mask):
        yield replace(shot, picture=done.mask, suffix="-mask", returned=options.return_mask, saved=options.save_mask)
    if done.composite is not None:
        yield replace(
            shot,
            picture=done.composite,
            suffix="-mask-composite",
            returned=options.return_mask_composite,
            saved=options.save_mask_composite,
        )


def describe(prepared: Prepared, index: int) -> str:
    """The generation text of one picture."""
    options = prepared.options
    shown = Shown(
        model_name=options.add_model_name_to_info,
        model_hash=options.add_model_hash_to_info,
        version=options.add_version_to_infotext,
    )
    return write(prepared.spec, prepared.checkpoint, index, shown)


def make_grid(shots: Sequence[Shot], options: OptionValues, batch_size: int) -> Shot:
    """All pictures as one, with the first one's text."""
    rows = grid.count_rows(
        len(shots), rows=options.n_rows, batch_size=batch_size, prevent_empty_spots=options.grid_prevent_empty_spots
    )
    sheet = grid.tile([shot.picture for shot in shots], rows, options.grid_background_color)
    return Shot(picture=sheet, text=shots[0].text, seed=shots[0].seed)


def encode_shot(
    shot: Shot, prepared: Prepared, *, file_format: Format | None = None, quality: int | None = None
) -> bytes:
    """A picture's file for an answer. A1111: as the server's options say; overrides count for saved files alone."""
    served = prepared.served
    text = shot.text if prepared.options.enable_pnginfo and not shot.suffix else ""
    wanted = fitting(shot.picture, file_format or served.samples_format)
    return encode(shot.picture, wanted, text=text, quality=quality or served.jpeg_quality)


def answer(wire: Generation, prepared: Prepared, event: Event, settings: Settings) -> bytes:
    """The JSON of a txt2img or img2img answer."""
    prepared = with_notes(prepared, event)
    made = finish(prepared, event)
    shots = [shot for shot in made if shot.returned]
    saving = bool(getattr(wire, "save_images", False))
    sheet = None
    if saving and shots and (len(shots) > 1 or not prepared.options.grid_only_if_multiple):
        sheet = make_grid(shots, prepared.options, prepared.spec.batch_size)
    if saving and (event.status.state == "done" or prepared.options.save_incomplete_images):
        save_all(made, sheet, prepared, settings, began=event.status.started_at)
    returned = [sheet, *shots] if sheet and prepared.options.return_grid else shots
    images = returned if getattr(wire, "send_images", True) else []
    body = {
        "images": [to_base64(encode_shot(shot, prepared)) for shot in images],
        "parameters": parameters(wire, prepared),
        "info": info(wire, prepared, event.status, returned, has_grid=len(returned) > len(shots)),
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def parameters(wire: Generation, prepared: Prepared) -> dict[str, Any]:
    """The request with all its fields as parsed; a size that was left out is the one that was used."""
    echo = wire.model_dump()
    for name in {"width", "height"} - wire.model_fields_set:
        echo[name] = getattr(prepared.spec, name)
    if isinstance(wire, Img2Img) and not wire.include_init_images:
        echo["init_images"] = echo["mask"] = None
    return echo


def info(
    wire: Generation, prepared: Prepared, status: JobStatus | None, returned: Sequence[Shot], *, has_grid: bool = False
) -> str:
    """The document that clients parse a second time: 32 keys in A1111's order, as ASCII JSON."""
    spec, checkpoint = prepared.spec, prepared.checkpoint
    planned = len(prepared.seeds)
    document = {
        "prompt": spec.prompt,
        "all_prompts": [spec.prompt] * planned,
        "negative_prompt": spec.negative_prompt,
        "all_negative_prompts": [spec.negative_prompt] * planned,
        "seed": prepared.seeds[0],
        "all_seeds": prepared.seeds,
        "subseed": prepared.subseeds[0],
        "all_subseeds": prepared.subseeds,
        "subseed_strength": wire.subseed_strength or 0,
        "width": spec.width,
        "height": spec.height,
        "sampler_name": spec.sampler,
        "cfg_scale": spec.cfg_scale,
        "steps": spec.steps,
        "batch_size": spec.batch_size,
        "restore_faces": spec.faces is not None,
        "face_restoration_model": spec.faces.restorer if spec.faces else None,
        "sd_model_name": checkpoint.base,
        "sd_model_hash": checkpoint.short_hash,
        "sd_vae_name": spec.vae or None,
        "sd_vae_hash": prepared.vae_hash,
        "seed_resize_from_w": wire.seed_resize_from_w,
        "seed_resize_from_h": wire.seed_resize_from_h,
        "denoising_strength": wire.denoising_strength,
        "extra_generation_params": {key: value for key, value in prepared.extra.items() if key not in TEXT_ONLY},
        "index_of_first_image": int(has_grid),
        "infotexts": [shot.text for shot in returned if not shot.suffix] or [describe(prepared, 0)],
        "styles": wire.styles or [],
        "job_timestamp": timestamp(status),
        "clip_skip": spec.clip_skip,
        "is_using_inpainting_conditioning": spec.weighs_mask,
        "version": VERSION,
    }
    return json.dumps(document)


def timestamp(status: JobStatus | None) -> str:
    """When a job started, in local time; "0" for none. A1111: clients parse these fourteen digits."""
    if status is None:
        return "0"
    return time.strftime("%Y%m%d%H%M%S", time.localtime(status.started_at or status.submitted_at))
