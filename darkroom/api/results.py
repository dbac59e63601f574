"""What a finished job becomes: pictures pasted together and encoded, texts, files, the `info` document.

Runs in worker threads; touches no event loop.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from darkroom.api.convert import Prepared
from darkroom.api.models import Generation, Img2Img
from darkroom.engine.client import Event, JobStatus
from darkroom.images import files, grid
from darkroom.images.codecs import Format, Pixels, encode, to_base64
from darkroom.jobs.infotext import VERSION, Shown, write
from darkroom.settings import OptionValues, Settings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """One finished picture with its generation text."""

    picture: Pixels
    text: str
    seed: int


def finish(prepared: Prepared, event: Event) -> list[Shot]:
    """The job's pictures in order, with what the mask kept pasted back."""
    return [
        Shot(
            picture=prepared.finishing.apply(done.picture, done.index),
            text=describe(prepared, done.index),
            seed=prepared.spec.seeds[done.index],
        )
        for done in sorted(event.pictures, key=lambda done: done.index)
    ]


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


def encode_shot(shot: Shot, prepared: Prepared, options: OptionValues, *, file_format: Format | None = None) -> bytes:
    """A picture's file. The format is the server's, not the job's: A1111 encodes after the overrides are gone."""
    text = shot.text if options.enable_pnginfo and prepared.options.enable_pnginfo else ""
    return encode(shot.picture, file_format or options.samples_format, text=text, quality=options.jpeg_quality)


def save_all(shots: Iterable[Shot], sheet: Shot | None, prepared: Prepared, settings: Settings) -> None:
    """Write pictures and grid into the dated output folders. Raises OSError."""
    options, kind = prepared.options, prepared.spec.kind
    if options.samples_save:
        for shot in shots:
            data = encode_shot(shot, prepared, options)
            folder = settings.output_dir / f"{kind}-images"
            files.save(data, folder, decoration=str(shot.seed), extension=options.samples_format)
    if sheet and options.grid_save:
        data = encode_shot(sheet, prepared, options, file_format=options.grid_format)
        folder = settings.output_dir / f"{kind}-grids"
        files.save(data, folder, decoration="", extension=options.grid_format, basename="grid", digits=4)


def answer(wire: Generation, prepared: Prepared, event: Event, options: OptionValues, settings: Settings) -> bytes:
    """The JSON of a txt2img or img2img answer. `options` are the server's, `prepared.options` the job's."""
    shots = finish(prepared, event)
    saving = bool(getattr(wire, "save_images", False))
    sheet = None
    if saving and shots and (len(shots) > 1 or not prepared.options.grid_only_if_multiple):
        sheet = make_grid(shots, prepared.options, prepared.spec.batch_size)
    if saving and (event.status.state == "done" or prepared.options.save_incomplete_images):
        save_all(shots, sheet, prepared, settings)
    returned = [sheet, *shots] if sheet and prepared.options.return_grid else shots
    images = returned if getattr(wire, "send_images", True) else []
    body = {
        "images": [to_base64(encode_shot(shot, prepared, options)) for shot in images],
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
    wire: Generation, prepared: Prepared, status: JobStatus, returned: Sequence[Shot], *, has_grid: bool = False
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
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": checkpoint.base,
        "sd_model_hash": checkpoint.short_hash,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": wire.seed_resize_from_w,
        "seed_resize_from_h": wire.seed_resize_from_h,
        "denoising_strength": wire.denoising_strength,
        "extra_generation_params": prepared.extra,
        "index_of_first_image": int(has_grid),
        "infotexts": [shot.text for shot in returned] or [describe(prepared, 0)],
        "styles": wire.styles or [],
        "job_timestamp": timestamp(status),
        "clip_skip": spec.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": VERSION,
    }
    return json.dumps(document)


def timestamp(status: JobStatus | None) -> str:
    """When a job started, in local time; "0" for none. A1111: clients parse these fourteen digits."""
    if status is None:
        return "0"
    return time.strftime("%Y%m%d%H%M%S", time.localtime(status.started_at or status.submitted_at))
