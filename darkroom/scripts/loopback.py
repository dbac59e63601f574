"""Loopback: every picture is where the next one starts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image

from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import to_pixels
from darkroom.images.grid import tile
from darkroom.scripts.plan import Ask, Describer, Made, Plan, Result, Script, Setting
from darkroom.scripts.requests import base64_of, changed, first_picture, with_seeds
from darkroom.scripts.signature import choice, number, whole

CURVES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "Aggressive": lambda p: math.sin(p * math.pi / 2),
        "Linear": lambda p: p,
        "Lazy": lambda p: 1 - math.cos(p * math.pi / 2),
    }
)
"""How far the strength has come, 0..1, after a share of the loops."""

DESCRIBERS: Mapping[str, Describer | None] = MappingProxyType(
    {"None": None, "CLIP": "clip", "DeepBooru": "deepdanbooru"}
)
"""The networks that can put words behind the prompt."""

_ORIGINAL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    loops: int = whole("Loops", 4, 1, 32, 1)
    final_strength: float = number("Final denoising strength", 0.5, 0, 1)
    curve: str = choice("Denoising strength curve", "Linear", tuple(CURVES))
    interrogation: str = choice("Append interrogated prompt at each iteration", "None", tuple(DESCRIBERS))


def strength(initial: float, final: float, loop: int, loops: int, curve: str) -> float:
    """The denoising strength of a loop, counted from 0."""
    if loop == 0 or loops == 1:
        return initial
    return initial + (final - initial) * CURVES[curve](loop / (loops - 1))


def plan(request: Img2Img, arguments: Arguments, setting: Setting) -> Plan:
    """All pictures of a single batch, or the last one of each of several; a grid comes first."""
    _check(request, arguments, setting)
    batches = request.n_iter or 1
    colours = to_pixels(first_picture(request, setting.max_pixels, setting.background))
    request = with_seeds(changed(request, batch_size=1, n_iter=1))
    notes = {"Final denoising strength": arguments.final_strength, "Denoising curve": arguments.curve}
    initial, seed = request.denoising_strength, request.seed or 0
    kept: list[Made] = []
    first: Made | None = None
    for _ in range(batches):
        current, last = request, None
        for loop in range(arguments.loops):
            level = strength(initial, arguments.final_strength, loop, arguments.loops, arguments.curve)
            ask = changed(current, seed=seed, denoising_strength=level)
            [outcome] = yield [
                Ask(
                    request=ask,
                    notes=notes,
                    colours=colours,
                    planned=arguments.loops * batches,
                    described=_described(current, arguments, setting),
                )
            ]
            if not outcome.made:
                break
            last, seed = outcome.made[0], seed + 1
            first = first or last
            kept += [last] if batches == 1 else []
            current = changed(current, init_images=[base64_of(last.picture)], inpainting_fill=_ORIGINAL)
        kept += [last] if batches > 1 and last else []
    return _result(kept, first, setting)


def _described(request: Img2Img, arguments: Arguments, setting: Setting) -> tuple[Describer, Image.Image] | None:
    """What describes the picture that a loop starts from, and the picture; None where that was not asked for."""
    describer = DESCRIBERS[arguments.interrogation]
    return (describer, first_picture(request, setting.max_pixels, setting.background)) if describer else None


def _check(request: Img2Img, arguments: Arguments, setting: Setting) -> None:
    if arguments.loops < 1:
        raise BadRequest("script_args[0]", arguments.loops, "at least 1 loop")
    if arguments.loops * (request.n_iter or 1) > setting.max_images:
        raise LimitExceeded("script_args[0]", arguments.loops, f"at most {setting.max_images} pictures in all")


def _result(kept: list[Made], first: Made | None, setting: Setting) -> Result:
    """A1111: every text is the first picture's, and a grid does not count as one."""
    sheets: tuple[Made, ...] = ()
    if len(kept) > 1 and setting.return_grid:
        sheet = tile([made.picture for made in kept], 1, setting.grid_background)
        sheets = (Made(picture=sheet, text="", seed=kept[0].seed),)
    pictures = (*sheets, *kept)
    return Result(
        pictures=pictures, cells=tuple(kept[-1:]), texts=(first.text,) * len(pictures) if first else (), sheets=sheets
    )


SCRIPT = Script(title="Loopback", arguments=Arguments, plan=plan, tabs=("img2img",))
