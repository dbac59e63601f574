"""What a picture's generation text says, as the fields of a request: the way back from a picture to the controls.

Works on entries as `/sdapi/v1/png-info` answers them. Knows no page; a field that a text leaves open is left out.
"""

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from darkroom.options.entries import OPTIONS_BY_ENTRY
from darkroom.sampling.names import names_of_text

Page = Literal["txt2img", "img2img"]
Entries = Mapping[str, object]

MASKED_CONTENT = ("fill", "original", "latent noise", "latent nothing")
"""The words for the values of `inpainting_fill`, in order."""

SOFT_INPAINTING = "Soft inpainting"
_SOFT_ENTRIES = (
    "schedule bias", "preservation strength", "transition contrast boost", "mask influence", "difference threshold",
    "difference contrast",
)  # fmt: skip

_NUMBERS: Mapping[str, tuple[str, type[int] | type[float]]] = MappingProxyType(
    {
        "Steps": ("steps", int),
        "CFG scale": ("cfg_scale", float),
        "Distilled CFG Scale": ("distilled_cfg_scale", float),
        "Image CFG scale": ("image_cfg_scale", float),
        "Seed": ("seed", int),
        "Size-1": ("width", int),
        "Size-2": ("height", int),
        "Batch size": ("batch_size", int),
        "Denoising strength": ("denoising_strength", float),
    }
)

_HIRES_NUMBERS: Mapping[str, tuple[str, type[int] | type[float]]] = MappingProxyType(
    {
        "Hires upscale": ("hr_scale", float),
        "Hires steps": ("hr_second_pass_steps", int),
        "Hires resize-1": ("hr_resize_x", int),
        "Hires resize-2": ("hr_resize_y", int),
    }
)

PLOT = "X/Y/Z plot"
_DRAWN = (True, False, False, False, False, False, False, 0, True)
"""Arguments of the plot behind those of its axes: a legend, no single pictures, no margin; values are texts."""

_HANDLED_AS_FIELDS = frozenset({"Face restoration", "Tiling", "Model hash"})
"""Entries that are options to the API, and controls of their own on the pages."""


def fields_of(entries: Entries, page: Page, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request that draws what a text tells of, as far as the text knows. `options` are the server's, as they are.

    A text without entries fills in the prompts alone.
    """
    fields: dict[str, Any] = {
        "prompt": str(entries.get("Prompt") or ""),
        "negative_prompt": str(entries.get("Negative prompt") or ""),
    }
    if "Steps" not in entries:
        return fields
    fields |= dict(_numbers(entries, _NUMBERS))
    fields["styles"] = _styles(entries.get("Styles array"))
    fields["sampler_name"], fields["scheduler"] = names_of_text(entries.get("Sampler"), entries.get("Schedule type"))
    fields |= _variation(entries) | _refiner(entries) | _restored(entries)
    fields["override_settings"] = dict(_overrides(entries, options))
    fields |= _plot(entries)
    fields |= _second_pass(entries) if page == "txt2img" else _inpainting(entries)
    return fields


def text_as_picture(text: str) -> str:
    """The smallest PNG, as base64, that carries a generation text: so that a text alone can be read like a picture's.

    One black pixel and one international text chunk. PNG (W3C Recommendation, third edition), sections 5.3 and 11.3.
    """
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    said = b"parameters\0\0\0\0\0" + text.encode()
    chunks = ((b"IHDR", header), (b"iTXt", said), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b""))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in chunks)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _numbers(
    entries: Entries, wanted: Mapping[str, tuple[str, type[int] | type[float]]]
) -> Iterator[tuple[str, int | float]]:
    for entry, (field, kind) in wanted.items():
        value = _number(entries.get(entry), kind)
        if value is not None:
            yield field, value


def _number(value: object, kind: type[int] | type[float]) -> int | float | None:
    try:
        return kind(str(value))
    except ValueError:
        return None


def _styles(names: object) -> list[str]:
    return [str(name) for name in names] if isinstance(names, list) else []


def _variation(entries: Entries) -> dict[str, Any]:
    subseed = _number(entries.get("Variation seed"), int)
    return {
        "subseed": -1 if subseed is None else subseed,
        "subseed_strength": _number(entries.get("Variation seed strength"), float) or 0.0,
        "seed_resize_from_w": _number(entries.get("Seed resize from-1"), int) or 0,
        "seed_resize_from_h": _number(entries.get("Seed resize from-2"), int) or 0,
    }


def _refiner(entries: Entries) -> dict[str, Any]:
    name = str(entries.get("Refiner") or "")
    at = _number(entries.get("Refiner switch at"), float)
    return {"refiner_checkpoint": name or None, **({} if at is None else {"refiner_switch_at": at})}


def _restored(entries: Entries) -> dict[str, Any]:
    return {"restore_faces": bool(entries.get("Face restoration")), "tiling": entries.get("Tiling") == "True"}


def _overrides(entries: Entries, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options that the text wants otherwise than they are."""
    for entry, option in OPTIONS_BY_ENTRY.items():
        if entry not in entries or option not in options or entry in _HANDLED_AS_FIELDS:
            continue
        wanted = _like(options[option], entries[entry])
        if wanted is not None and wanted != options[option]:
            yield option, wanted
    if "Model hash" in entries and not options.get("disable_weights_auto_swap", True):
        yield "sd_model_checkpoint", str(entries["Model hash"])
    restorer = str(entries.get("Face restoration") or "")
    if restorer and restorer != options.get("face_restoration_model"):
        yield "face_restoration_model", restorer


def _like(current: object, value: object) -> object:
    """A value of the same kind as the option's; None where it cannot be one."""
    if isinstance(current, bool):
        return value if isinstance(value, bool) else str(value) != "False"
    if isinstance(current, int | float):
        found = _number(value, float)
        return int(found) if found is not None and found == int(found) else found
    return str(value)


def _second_pass(entries: Entries) -> dict[str, Any]:
    numbers = dict(_numbers(entries, _HIRES_NUMBERS))
    resized = bool(numbers.get("hr_resize_x") or numbers.get("hr_resize_y"))
    if "Denoising strength" not in entries or not (resized or "Hires upscale" in entries):
        return {"enable_hr": False}
    sampler, schedule = entries.get("Hires sampler"), entries.get("Hires schedule type")
    other = None if sampler in {None, "Use same sampler"} else names_of_text(sampler, None)[0]
    checkpoint = entries.get("Hires checkpoint")
    return {
        "enable_hr": True,
        **numbers,
        "hr_second_pass_steps": numbers.get("hr_second_pass_steps", 0),
        "hr_upscaler": entries.get("Hires upscaler"),
        "hr_sampler_name": other,
        "hr_scheduler": None
        if schedule in {None, "Use same scheduler"}
        else names_of_text(other or entries.get("Sampler"), schedule)[1],
        "hr_checkpoint_name": None if checkpoint in {None, "Use same checkpoint"} else checkpoint,
        "hr_prompt": str(entries.get("Hires prompt") or ""),
        "hr_negative_prompt": str(entries.get("Hires negative prompt") or ""),
    }


def _plot(entries: Entries) -> dict[str, Any]:
    """The X/Y/Z plot whose grid this is, its values as texts; none otherwise."""
    if entries.get("Script") != PLOT:
        return {"script_name": None, "script_args": []}
    axes = [(str(entries.get(f"{axis} Type", "Nothing")), str(entries.get(f"{axis} Values", ""))) for axis in "XYZ"]
    return {
        "script_name": PLOT,
        "script_args": [*(part for kind, values in axes for part in (kind, values, None)), *_DRAWN],
    }


def _inpainting(entries: Entries) -> dict[str, Any]:
    """How a mask was used; the mask itself is in no text."""
    content = str(entries.get("Masked content", "original"))
    fields: dict[str, Any] = {
        "inpainting_mask_invert": int(entries.get("Mask mode") == "Inpaint not masked"),
        "inpainting_fill": MASKED_CONTENT.index(content) if content in MASKED_CONTENT else 1,
        "inpaint_full_res": int(entries.get("Inpaint area") == "Only masked"),
        "alwayson_scripts": _soft_inpainting(entries),
    }
    padding = _number(entries.get("Masked area padding"), int)
    blur = _number(entries.get("Mask blur"), int)
    return fields | {
        **({} if padding is None else {"inpaint_full_res_padding": padding}),
        **({} if blur is None else {"mask_blur": blur}),
    }


def _soft_inpainting(entries: Entries) -> dict[str, Any]:
    if entries.get(f"{SOFT_INPAINTING} enabled") != "True":
        return {}
    values = [_number(entries.get(f"{SOFT_INPAINTING} {name}"), float) for name in _SOFT_ENTRIES]
    return {} if None in values else {SOFT_INPAINTING: {"args": [True, *values]}}
