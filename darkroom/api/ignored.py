"""Which fields of a request have no effect yet: they are accepted and named, never dropped silently."""

from collections.abc import Iterator, Mapping

from darkroom.api.models import Generation
from darkroom.prompt.grammar import cut_networks

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "restore_faces": (None, False),
    "tiling": (None, False),
    "s_min_uncond": (None, 0),
    "override_settings_restore_afterwards": (None, True),
    "refiner_checkpoint": (None, "", "None", "none"),
    "refiner_switch_at": (None, 0, 1),
    "firstpass_image": (None, ""),
    "enable_hr": (None, False),
    "firstphase_width": (None, 0),
    "firstphase_height": (None, 0),
    "hr_scale": (None, 2),
    "hr_upscaler": (None, "", "None"),
    "hr_second_pass_steps": (None, 0),
    "hr_resize_x": (None, 0),
    "hr_resize_y": (None, 0),
    "hr_checkpoint_name": (None, "", "Use same checkpoint"),
    "hr_sampler_name": (None, "", "Use same sampler"),
    "hr_scheduler": (None, "", "Use same scheduler"),
    "hr_prompt": (None, ""),
    "hr_negative_prompt": (None, ""),
    "image_cfg_scale": (None,),
    "latent_mask": (None, ""),
    "script_name": (None, "", "None"),
    "infotext": (None, ""),
}
"""The values that ask for nothing."""


def ignored_fields(wire: Generation) -> Iterator[str]:
    """The fields of a request that ask for something that Darkroom cannot do yet."""
    for name, neutral in _NEUTRAL.items():
        if name in type(wire).model_fields and getattr(wire, name) not in neutral:
            yield name
    if any(style not in {"", "None"} for style in wire.styles or ()):
        yield "styles"
    yield from _ignored_tags(wire)
    for title, script in getattr(wire, "alwayson_scripts", {}).items():
        if isinstance(script, dict) and script.get("args"):
            yield f"alwayson_scripts.{title}"


def _ignored_tags(wire: Generation) -> Iterator[str]:
    """The tags of extra networks that would have been applied."""
    if not wire.disable_extra_networks:
        for tag in cut_networks(wire.prompt or "")[1]:
            yield f"prompt <{':'.join((tag.word, *tag.items))}>"
