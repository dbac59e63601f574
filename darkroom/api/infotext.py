"""The request's field `infotext`: a picture's generation text that fills in what the client did not send."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from darkroom.api.checkpoints import closest_checkpoint
from darkroom.api.models import Generation, Img2Img, Txt2Img
from darkroom.errors import BadRequest, UnknownName
from darkroom.jobs.infotext import Reading, read
from darkroom.jobs.spec import CheckpointInfo
from darkroom.options.entries import OPTIONS_BY_ENTRY
from darkroom.options.values import OptionValues
from darkroom.prompt.styles import load
from darkroom.sampling.names import names_of_text
from darkroom.settings import Settings

Entries = Mapping[str, object]
Wire = TypeVar("Wire", bound=Generation)

_SHARED_FIELDS = {
    "Steps": "steps",
    "Seed": "seed",
    "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength",
    "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h",
    "Refiner switch at": "refiner_switch_at",
}

_TXT2IMG_FIELDS = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Styles array": "styles",
    "CFG scale": "cfg_scale",
    "Distilled CFG Scale": "distilled_cfg_scale",
    "Size-1": "width",
    "Size-2": "height",
    "Batch size": "batch_size",
    "Denoising strength": "denoising_strength",
    "Hires upscale": "hr_scale",
    "Hires upscaler": "hr_upscaler",
    "Hires steps": "hr_second_pass_steps",
    "Hires resize-1": "hr_resize_x",
    "Hires resize-2": "hr_resize_y",
    "Hires checkpoint": "hr_checkpoint_name",
    "Hires prompt": "hr_prompt",
    "Hires negative prompt": "hr_negative_prompt",
}

_SOFT_INPAINTING = "Soft inpainting"
_SOFT_ENTRIES = (
    "schedule bias", "preservation strength", "transition contrast boost", "mask influence", "difference threshold",
    "difference contrast",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A request with the fields that its text filled in; `warnings` says what of the text could not be used."""

    wire: Any
    warnings: tuple[str, ...] = ()


def reading(values: OptionValues, settings: Settings) -> Reading:
    """How generation texts are read under these options."""
    return Reading(
        styles=load(settings.style_files),
        use_styles=values.infotext_styles,
        skip=frozenset(values.infotext_skip_pasting),
        old_hires=values.use_old_hires_fix_width_height,
        compatible=values.auto_backcompat,
    )


def fill(wire: Generation, values: OptionValues, settings: Settings, checkpoints: Sequence[CheckpointInfo]) -> Filled:
    """The request with its `infotext` worked in. What the client sent stays. Raises BadRequest for an unfit entry."""
    text = getattr(wire, "infotext", None)
    if not text:
        return Filled(wire=wire)
    if len(text) > settings.max_prompt_chars * 3:
        raise BadRequest("infotext", f"{len(text)} characters", f"at most {settings.max_prompt_chars * 3}")
    entries = read(text, reading(values, settings))
    refiner, warnings = _refiner(entries, checkpoints)
    fields = {**_fields(wire, entries), **refiner}
    missing = {name: value for name, value in fields.items() if name not in wire.model_fields_set}
    overrides = {**dict(_overrides(entries, values)), **(wire.override_settings or {})}
    scripts = getattr(wire, "alwayson_scripts", {})
    return Filled(
        wire=_validated(
            wire,
            {
                **missing,
                "override_settings": overrides,
                "alwayson_scripts": {**_scripts(wire, entries, scripts), **scripts},
            },
        ),
        warnings=warnings,
    )


def _validated(wire: Wire, fields: Mapping[str, Any]) -> Wire:
    sent = {name: getattr(wire, name) for name in wire.model_fields_set}
    try:
        return type(wire).model_validate({**sent, **fields})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadRequest(f"infotext ({first['loc'][0]})", first["input"], first["msg"]) from None


def _fields(wire: Generation, entries: Entries) -> dict[str, Any]:
    """Request fields by name, as the text has them."""
    sampler, scheduler = names_of_text(entries.get("Sampler"), entries.get("Schedule type"))
    fields: dict[str, Any] = {"sampler_name": sampler, "scheduler": scheduler}
    fields.update((field, entries[entry]) for entry, field in _SHARED_FIELDS.items() if entry in entries)
    if isinstance(wire, Txt2Img):
        fields.update((field, entries[entry]) for entry, field in _TXT2IMG_FIELDS.items() if entry in entries)
        # A1111: any strength counts, so the text of an img2img picture asks for a second pass as well.
        fields["enable_hr"] = "Denoising strength" in entries
        fields.update(_second_pass(entries))
    return fields


def _second_pass(entries: Entries) -> Iterator[tuple[str, str]]:
    """The second pass's sampler and schedule where they are not the first one's."""
    sampler, schedule = entries.get("Hires sampler"), entries.get("Hires schedule type")
    other_sampler, other_schedule = sampler != "Use same sampler", schedule != "Use same scheduler"
    if other_sampler:
        yield "hr_sampler_name", names_of_text(sampler, None)[0]
    if other_schedule:
        yield "hr_scheduler", names_of_text(sampler if other_sampler else entries.get("Sampler"), schedule)[1]


def _refiner(entries: Entries, checkpoints: Sequence[CheckpointInfo]) -> tuple[dict[str, str], tuple[str, ...]]:
    name = str(entries.get("Refiner") or "")
    if not name:
        return {}, ()
    try:
        return {"refiner_checkpoint": closest_checkpoint(checkpoints, "infotext (Refiner)", name).title}, ()
    except UnknownName:
        return {}, (f"infotext: the refiner {name[:80]!r} is unknown and was dropped",)


def _overrides(entries: Entries, values: OptionValues) -> Iterator[tuple[str, object]]:
    """The options that the text wants otherwise than they are."""
    for entry, option in OPTIONS_BY_ENTRY.items():
        if entry not in entries or (option == "sd_model_checkpoint" and values.disable_weights_auto_swap):
            continue
        wanted = _with(values, entry, option, entries[entry])[option]
        if wanted != values[option]:
            yield option, wanted


def _with(values: OptionValues, entry: str, option: str, value: object) -> OptionValues:
    if isinstance(values[option], bool) and isinstance(value, str):
        value = value != "False"  # A1111: every other text is true, so "Face restoration: CodeFormer" switches it on
    try:
        return values.merged({option: value})
    except BadRequest as error:
        raise BadRequest(f"infotext ({entry})", value, error.allowed) from None


def _scripts(wire: Generation, entries: Entries, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Soft inpainting as the text has it, unless the client says something of it."""
    if not isinstance(wire, Img2Img) or entries.get(f"{_SOFT_INPAINTING} enabled") != "True":
        return {}
    if any(title.lower() == _SOFT_INPAINTING.lower() for title in sent):
        return {}
    numbers = [_number(entries.get(f"{_SOFT_INPAINTING} {name}"), name) for name in _SOFT_ENTRIES]
    return {_SOFT_INPAINTING: {"args": [True, *numbers]}}


def _number(value: object, name: str) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise BadRequest(f"infotext ({_SOFT_INPAINTING} {name})", value, "a number") from None
