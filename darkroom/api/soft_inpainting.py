"""Soft inpainting as a request asks for it: the arguments of the always-on part, and what the generation text says."""

import math
from collections.abc import Sequence

from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest
from darkroom.jobs.spec import SoftInpainting
from darkroom.scripts.always_on import SoftInpainting as Arguments
from darkroom.scripts.signature import Lists, read

TITLE = "Soft inpainting"

_ENTRIES = (
    "enabled", "schedule bias", "preservation strength", "transition contrast boost", "mask influence",
    "difference threshold", "difference contrast",
)  # fmt: skip
_DEFAULTS = (False, 1, 0.5, 4, 0, 0.5, 2)
_MOST = 100.0
"""The largest number that still has a meaning; A1111's own controls end at 32."""


def soft_inpainting(wire: Img2Img) -> tuple[SoftInpainting | None, dict[str, object]]:
    """What was asked for, and its entries in the generation text; None where it was not, or there is no mask.

    Raises BadRequest.
    """
    field = f"alwayson_scripts.{TITLE}.args"
    given = _arguments(wire)
    asked = read(Arguments, given, Lists(tab="img2img"), field=field, short=True)
    if not asked.enabled or wire.mask is None:
        return None, {}
    _check(field, 0, _MOST, bias=asked.bias, strength=asked.strength)
    _check(field, 0, _MOST, threshold=asked.difference_threshold, sharpness=asked.difference_contrast)
    _check(field, 1 / _MOST, _MOST, contrast=asked.contrast)
    _check(field, 0, 1, influence=asked.influence)
    soft = SoftInpainting(
        power=asked.bias,
        scale=asked.strength,
        contrast=asked.contrast,
        mask_influence=asked.influence,
        threshold=asked.difference_threshold,
        sharpness=asked.difference_contrast,
    )
    shown = (True, *given[1:], *_DEFAULTS[max(len(given), 1) :])
    return soft, {f"{TITLE} {name}": value for name, value in zip(_ENTRIES, shown, strict=False)}


def _arguments(wire: Img2Img) -> Sequence[object]:
    for title, script in wire.alwayson_scripts.items():
        if title.lower() == TITLE.lower() and isinstance(script, dict) and isinstance(script.get("args"), list):
            return list(script["args"])
    return ()


def _check(field: str, low: float, high: float, **numbers: float) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and low <= number <= high):
            raise BadRequest(f"{field} ({name})", number, f"from {low:g} to {high:g}")
