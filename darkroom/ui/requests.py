"""What the controls of txt2img and img2img share, turned into a request's fields and back. Pure; knows no component."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from darkroom.ui.parts.gathering import script_fields

Fields = Mapping[str, Any]

SAME = "Use same"
"""How the choice begins that leaves something of the second pass as it is in the first."""

SAME_CHECKPOINT, SAME_SAMPLER, SAME_SCHEDULER = (f"{SAME} {what}" for what in ("checkpoint", "sampler", "scheduler"))
SERVERS_CHOICE = "Server's choice"
QUICK = ("sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers")
"""The options of the bar above the pages."""

_PLAIN = (
    "prompt", "negative_prompt", "styles", "sampler_name", "scheduler", "steps", "width", "height", "n_iter",
    "batch_size", "cfg_scale", "seed",
)  # fmt: skip
_VARIATION = ("subseed", "subseed_strength", "seed_resize_from_w", "seed_resize_from_h")
_REFINER = ("refiner_checkpoint", "refiner_switch_at")
_HIRES = (
    "hr_upscaler", "hr_second_pass_steps", "denoising_strength", "hr_scale", "hr_resize_x", "hr_resize_y",
    "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt",
)  # fmt: skip
_SAME = {
    "hr_checkpoint_name": SAME_CHECKPOINT,
    "hr_sampler_name": SAME_SAMPLER,
    "hr_scheduler": SAME_SCHEDULER,
}


def shared_fields(fields: Fields) -> dict[str, Any]:
    """The fields that both pages have, scripts and options among them. What is empty or folded away is left out."""
    found = _given(fields, _PLAIN)
    if fields.get("variation"):
        found |= _given(fields, _VARIATION)
    if fields.get("refines"):
        found |= _given(fields, _REFINER)
    found |= {name: True for name in ("restore_faces", "tiling", "save_images") if fields.get(name)}
    overrides = {**chosen_options(fields), **read_overrides(fields.get("overrides") or ())}
    if overrides:
        found["override_settings"] = overrides
    return found | script_fields(fields)


def hires_fields(fields: Fields) -> dict[str, Any]:
    """The fields of hires fix; none where it is off."""
    if not fields.get("enable_hr"):
        return {}
    found = _given(fields, _HIRES)
    return {"enable_hr": True, **{name: value for name, value in found.items() if value != _SAME.get(name)}}


def chosen_options(fields: Fields) -> dict[str, Any]:
    """The options for what stands in the bar above the pages."""
    return {name: value for name, value in _given(fields, QUICK).items() if value not in {SERVERS_CHOICE, 0}}


def controls_of(request: Fields) -> dict[str, Any]:
    """The controls' values for a request, as `shared_fields` and `hires_fields` read them.

    Sections that the request says something about are unfolded, and folded where it says that it does without.
    """
    shown = dict(request)
    if "subseed_strength" in request or "seed_resize_from_w" in request:
        resized = all((request.get(name) or 0) > 0 for name in ("seed_resize_from_w", "seed_resize_from_h"))
        shown["variation"] = bool(request.get("subseed_strength")) or resized
        shown |= {name: max(shown.get(name) or 0, 0) for name in ("seed_resize_from_w", "seed_resize_from_h")}
    if "refiner_checkpoint" in request:
        shown["refines"] = request["refiner_checkpoint"] not in {None, "", "None"}
    for name, same in _SAME.items():
        if name in request:
            shown[name] = request[name] or same
    shown |= {name: bool(request[name]) for name in ("restore_faces", "tiling") if name in request}
    if "override_settings" in request:
        shown["overrides"] = write_overrides(request["override_settings"] or {})
    return {name: value for name, value in shown.items() if value is not None}


def read_overrides(lines: Iterable[str]) -> dict[str, Any]:
    """Options of lines such as `eta_ddim: 0.5`; a value that is no JSON is a text."""
    found = {}
    for line in lines:
        name, colon, text = str(line).partition(":")
        if colon and name.strip():
            found[name.strip()] = _value(text.strip())
    return found


def write_overrides(options: Mapping[str, Any]) -> list[str]:
    """The lines that `read_overrides` reads."""
    return [f"{name}: {value if _is_plain(value) else json.dumps(value)}" for name, value in options.items()]


def with_styles(prompt: str, texts: Iterable[str | None]) -> str:
    """A prompt with styles worked in, as the API does it: around it where a text holds `{prompt}`, or behind it."""
    for text in texts:
        if text and "{prompt}" in text:
            prompt = text.replace("{prompt}", prompt)
        elif text:
            prompt = ", ".join(part for part in (prompt.strip(), text.strip()) if part)
    return prompt


def _given(fields: Fields, names: Iterable[str]) -> dict[str, Any]:
    found = {name: fields.get(name) for name in names}
    return {name: value for name, value in found.items() if value is not None and value not in ("", [])}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_plain(value: object) -> bool:
    """Whether a text is read back as itself."""
    return isinstance(value, str) and _value(value) == value
