"""Pictures that are rendered from nothing but fonts and formulas, for teaching a network to enlarge.

Emoji, lettering, shapes, gradients and cloudy textures, each picture a mixture. Knows nothing of networks. Everything
random comes from the generator that the caller passes.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from darkroom.mini.dataset import CELL, TINTS, Glyph, Picture, Rgb, tint_sprite

LETTERING = Path("/usr/share/fonts/truetype/dejavu")
SUPERSAMPLING = 4
REDUCING = (
    Image.Resampling.BOX,
    Image.Resampling.BICUBIC,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BILINEAR,
)
"""How pictures came to be small is not known to who enlarges them, so the network meets several ways."""

Kind = Literal["emoji", "lettering", "shapes", "texture", "mixture"]
KINDS: tuple[Kind, ...] = ("emoji", "lettering", "shapes", "texture", "mixture")
SHARES = (0.34, 0.18, 0.18, 0.1, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """What is drawn from: emoji and the files of fonts with letters."""

    glyphs: tuple[Glyph, ...]
    fonts: tuple[Path, ...]


def held_out(glyphs: Sequence[Glyph]) -> tuple[tuple[Glyph, ...], tuple[Glyph, ...]]:
    """The glyphs to learn from, and every tenth different picture, to judge by."""
    kept = tuple(glyph for glyph in glyphs if glyph.same_as % 10)
    return kept, tuple(glyph for glyph in glyphs if glyph.same_as % 10 == 0)


def find_fonts() -> tuple[Path, ...]:
    """The files of the lettering fonts. Raises RuntimeError where there are none."""
    fonts = tuple(sorted(LETTERING.glob("*.ttf")))
    if not fonts:
        raise RuntimeError(f"no fonts in {LETTERING}; install fonts-dejavu")
    return fonts


def _colour(rng: np.random.Generator) -> Rgb:
    """Any colour; black and white are the commonest in drawings."""
    draw = rng.random()
    if draw < 0.15:
        return (255, 255, 255)
    if draw < 0.3:
        return (0, 0, 0)
    red, green, blue = (int(c) for c in rng.integers(0, 256, size=3))
    return (red, green, blue)


def cloud(rng: np.random.Generator, pixels: int) -> NDArray[np.float64]:
    """Noise [pixels, pixels] in 0..1 whose amplitude falls with frequency as f ** -roughness."""
    fy, fx = np.fft.fftfreq(pixels)[:, None], np.fft.rfftfreq(pixels)[None]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1 / pixels
    shape = frequency.shape
    waves = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * frequency ** -rng.uniform(1.2, 2.6)
    field = np.fft.irfft2(waves, s=(pixels, pixels))
    spread = float(np.ptp(field)) or 1.0
    return np.asarray((field - field.min()) / spread)


def _ramp(rng: np.random.Generator, pixels: int) -> NDArray[np.float64]:
    """A linear or round gradient [pixels, pixels] in 0..1."""
    y, x = np.mgrid[0:pixels, 0:pixels] / pixels
    if rng.random() < 0.3:
        return np.asarray(np.clip(np.hypot(x - rng.random(), y - rng.random()) * rng.uniform(0.7, 2), 0, 1))
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1))


def _between(weights: NDArray[np.float64], first: Rgb, second: Rgb) -> Image.Image:
    mixed = np.array(first) + weights[..., None] * (np.array(second, dtype=np.float64) - np.array(first))
    return Image.fromarray(mixed.round().astype(np.uint8))


def _ground(rng: np.random.Generator, pixels: int, textured: float) -> Image.Image:
    """A plain colour, a gradient, or, `textured` of them, clouds between two colours."""
    draw = rng.random()
    if draw < textured:
        return _between(cloud(rng, pixels), _colour(rng), _colour(rng))
    if draw < textured + 0.25:
        return _between(_ramp(rng, pixels), _colour(rng), _colour(rng))
    return Image.new("RGB", (pixels, pixels), _colour(rng))


def _add_emoji(rng: np.random.Generator, picture: Image.Image, supplies: Supplies) -> None:
    """Never larger than the font has it: there is nothing to learn from what was enlarged already."""
    glyph = supplies.glyphs[int(rng.integers(len(supplies.glyphs)))]
    tint = list(TINTS)[int(rng.integers(len(TINTS)))] if rng.random() < 0.2 else None
    sprite = tint_sprite(glyph.sprite, tint) if tint else glyph.sprite
    side = CELL if rng.random() < 0.3 else int(rng.integers(40, CELL + 1))
    stamp = Image.fromarray(sprite, "RGBA").resize((side, side), Image.Resampling.LANCZOS)
    x, y = (int(rng.integers(min(0, picture.width - side), max(1, picture.width - side + 1))) for _ in range(2))
    picture.paste(stamp, (x, y), stamp)


def _add_words(rng: np.random.Generator, picture: Image.Image, supplies: Supplies) -> None:
    path = supplies.fonts[int(rng.integers(len(supplies.fonts)))]
    font = ImageFont.truetype(str(path), int(rng.integers(9, 56)))
    letters = string.ascii_letters + string.digits + "  .,!?&()"
    words = "".join(letters[int(k)] for k in rng.integers(len(letters), size=int(rng.integers(3, 14))))
    place = (int(rng.integers(-8, picture.width // 2)), int(rng.integers(-8, picture.height - 8)))
    ImageDraw.Draw(picture).text(place, words, font=font, fill=_colour(rng))


def _add_shapes(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Ellipses, polygons, lines and arcs, drawn larger and reduced so that their edges are smooth."""
    big = picture.resize((picture.width * SUPERSAMPLING, picture.height * SUPERSAMPLING), Image.Resampling.NEAREST)
    pen, side = ImageDraw.Draw(big), big.width
    for _ in range(int(rng.integers(1, 7))):
        colour, width = _colour(rng), int(rng.integers(2, 28))
        points = [(int(x), int(y)) for x, y in rng.integers(-side // 4, side + side // 4, size=(4, 2))]
        (left, right), (top, bottom) = (sorted(axis) for axis in zip(*points[:2], strict=True))
        match int(rng.integers(6)):
            case 0:
                pen.ellipse((left, top, right, bottom), fill=colour)
            case 1:
                pen.polygon(points[: int(rng.integers(3, 5))], fill=colour)
            case 2:
                pen.line(points, fill=colour, width=width, joint="curve")
            case 3:
                pen.ellipse((left, top, right, bottom), outline=colour, width=width)
            case 4:
                pen.rounded_rectangle((left, top, right, bottom), radius=width, fill=colour)
            case _:
                pen.rectangle((left, top, right, bottom), outline=colour, width=width)
    return big.resize(picture.size, Image.Resampling.BOX)


def paint(rng: np.random.Generator, supplies: Supplies, pixels: int, kind: Kind | None = None) -> Picture:
    """A picture `[pixels, pixels, 3]` of the kind, or of one drawn by its share."""
    kind = kind or KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    picture = _ground(rng, pixels, {"texture": 1.0, "mixture": 0.3}.get(kind, 0.1))
    if kind in {"shapes", "mixture"}:
        picture = _add_shapes(rng, picture)
    for _ in range(max(1, pixels // 96)):
        if kind in {"emoji", "mixture"}:
            _add_emoji(rng, picture, supplies)
        if kind == "lettering" or (kind == "mixture" and rng.random() < 0.5):
            _add_words(rng, picture, supplies)
    return np.asarray(picture)


def halved(picture: Picture, filter_: Image.Resampling) -> Picture:
    """The picture at half its width and height."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width // 2, height // 2), filter_))


def pair(rng: np.random.Generator, supplies: Supplies, pixels: int) -> tuple[Picture, Picture]:
    """A picture `[pixels, pixels, 3]`, turned or mirrored at random, and the same at half its size."""
    picture = np.rot90(paint(rng, supplies, pixels), int(rng.integers(4)))
    large = np.ascontiguousarray(picture[:, ::-1] if rng.random() < 0.5 else picture)
    return large, halved(large, REDUCING[int(rng.integers(len(REDUCING)))])
