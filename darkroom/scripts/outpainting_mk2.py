"""Outpainting mk2: a picture grows side by side; what is missing is drawn over noise that resembles the picture."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import to_pixels
from darkroom.images.grid import count_rows, tile
from darkroom.images.matched_noise import fill_with_noise
from darkroom.scripts.borders import DIRECTIONS, borders
from darkroom.scripts.plan import Ask, Made, Outcome, Plan, Result, Script, Setting
from darkroom.scripts.requests import base64_of, changed, first_picture, with_seeds
from darkroom.scripts.signature import note, number, several, whole

_ORIGINAL = 1
_CELL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    info: str = note("Works best with many steps (80 to 100), Euler a and a denoising strength of 0.8.")
    pixels: int = whole("Pixels to expand", 128, 8, 256, 8)
    mask_blur: int = whole("Mask blur", 8, 0, 64, 1)
    directions: tuple[str, ...] = several("Outpainting direction", DIRECTIONS, DIRECTIONS)
    falloff: float = number("Fall-off exponent (lower=higher detail)", 1.0, 0.0, 4.0, 0.01)
    variation: float = number("Color variation", 0.05, 0.0, 1.0, 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Growth:
    """One side that grows by some pixels."""

    side: str
    pixels: int

    @property
    def is_horizontal(self) -> bool:
        """Whether the picture becomes wider."""
        return self.side in {"left", "right"}

    @property
    def is_first(self) -> bool:
        """Whether the new pixels come before the old ones."""
        return self.side in {"left", "up"}


def plan(request: Img2Img, arguments: Arguments, setting: Setting) -> Plan:
    """Every picture that the request asks for, enlarged; with several a grid comes first."""
    request = with_seeds(request)
    picture = first_picture(request, setting.max_pixels, setting.background)
    growths = _growths(picture.size, arguments, setting)
    pictures = (request.batch_size or 1) * (request.n_iter or 1)
    if pictures * len(growths) > setting.max_images:
        raise LimitExceeded("script_args[3]", f"{pictures * len(growths)} pictures", f"at most {setting.max_images}")
    grown: list[Made] = []
    text = ""
    for place in range(pictures):
        plain = changed(request, seed=(request.seed or 0) + place, batch_size=1, n_iter=1, inpaint_full_res=False)
        last = yield from _grow(plain, picture, growths, arguments, pictures)
        if last is None:
            break
        grown.append(replace(last, text=""))
        text = text or last.text
    return _result(grown, text, setting)


def _growths(size: tuple[int, int], arguments: Arguments, setting: Setting) -> list[_Growth]:
    _check(arguments)
    ring = borders(size, arguments.pixels, arguments.directions)
    width, height = ring.grown(size)
    if width * height > setting.max_pixels:
        raise LimitExceeded("script_args[1]", f"{width}x{height}", f"at most {setting.max_pixels} pixels")
    every = [_Growth(side=side, pixels=getattr(ring, side)) for side in DIRECTIONS]
    return [growth for growth in every if growth.pixels]


def _check(arguments: Arguments) -> None:
    """Raises BadRequest."""
    ranges = (("pixels", 1, 2048), ("mask_blur", 0, 64), ("falloff", 0, 4), ("variation", 0, 1))
    for name, low, high in ranges:
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise BadRequest(f"script_args: {name}", value, f"from {low} to {high}")


def _grow(
    request: Img2Img, picture: Image.Image, growths: Sequence[_Growth], arguments: Arguments, pictures: int
) -> Generator[Sequence[Ask], Sequence[Outcome], Made | None]:
    """One picture grown on all sides; None after an interrupt. Its text is that of the first side."""
    made: Made | None = None
    text = ""
    for growth in growths:
        canvas, box, ask = _ask(request, picture, growth, arguments)
        [outcome] = yield [replace(ask, planned=pictures * len(growths))]
        if not outcome.made:
            return None
        made = outcome.made[0]
        text = text or made.text
        canvas.paste(Image.fromarray(made.picture), box[:2])
        picture = canvas.crop((0, 0, *_sizes(picture, growth)))
    return replace(made, picture=to_pixels(picture), text=text) if made else None


def _sizes(picture: Image.Image, growth: _Growth) -> tuple[int, int]:
    """Width and height after one side has grown."""
    wide = growth.pixels if growth.is_horizontal else 0
    high = 0 if growth.is_horizontal else growth.pixels
    return picture.width + wide, picture.height + high


def _ask(
    request: Img2Img, picture: Image.Image, growth: _Growth, arguments: Arguments
) -> tuple[Image.Image, tuple[int, int, int, int], Ask]:
    """The canvas with noise on it, the box of it that is drawn (left, top, right, bottom), and the request for it."""
    width, height = _sizes(picture, growth)
    wide, high = -(-width // _CELL) * _CELL, -(-height // _CELL) * _CELL
    corner = (width - picture.width, height - picture.height) if growth.is_first else (0, 0)
    canvas = Image.new("RGB", (wide, high))
    canvas.paste(picture, corner)
    missing = np.ones((high, wide), dtype=np.bool_)
    missing[corner[1] : corner[1] + picture.height, corner[0] : corner[0] + picture.width] = False
    noised = fill_with_noise(to_pixels(canvas), missing, falloff=arguments.falloff, variation=arguments.variation)
    canvas = Image.fromarray(noised)
    part = (
        min(request.width or wide, wide) if growth.is_horizontal else wide,
        high if growth.is_horizontal else min(request.height or high, high),
    )
    left, top = (0, 0) if growth.is_first else (wide - part[0], high - part[1])
    box = (left, top, left + part[0], top + part[1])
    known = (*corner, corner[0] + picture.width, corner[1] + picture.height)
    fields = {
        "init_images": [base64_of(canvas.crop(box))],
        "mask": base64_of(_mask((wide, high), known, growth, arguments.mask_blur).crop(box)),
        "latent_mask": base64_of(_mask((wide, high), known, growth, arguments.mask_blur * 2).crop(box)),
        "mask_blur": None,
        "mask_blur_x": arguments.mask_blur * 4 if growth.is_horizontal else 0,
        "mask_blur_y": 0 if growth.is_horizontal else arguments.mask_blur * 4,
        "inpainting_fill": _ORIGINAL,
        "inpainting_mask_invert": 0,
        "resize_mode": 0,
        "width": part[0],
        "height": part[1],
    }
    return canvas, box, Ask(request=changed(request, **fields))


def _mask(size: tuple[int, int], known: tuple[int, ...], growth: _Growth, inset: int) -> Image.Image:
    """White where something is missing, and `inset` pixels into what is known at the side that grows."""
    left, top, right, bottom = known
    if growth.side == "left":
        left += inset
    elif growth.side == "right":
        right -= inset
    elif growth.side == "up":
        top += inset
    else:
        bottom -= inset
    mask = Image.new("L", size, "white")
    if left < right and top < bottom:
        ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), fill="black")
    return mask


def _result(grown: list[Made], text: str, setting: Setting) -> Result:
    sheets: tuple[Made, ...] = ()
    if len(grown) > 1 and setting.return_grid:
        sheet = tile([made.picture for made in grown], count_rows(len(grown)), setting.grid_background)
        sheets = (Made(picture=sheet, text="", seed=grown[0].seed),)
    pictures = (*sheets, *grown)
    return Result(pictures=pictures, cells=tuple(grown), texts=(text,) * len(pictures), sheets=sheets)


SCRIPT = Script(title="Outpainting mk2", arguments=Arguments, plan=plan, tabs=("img2img",))
