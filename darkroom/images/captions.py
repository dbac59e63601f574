"""A grid of pictures with a text over every column and beside every row.

Knows layout and letters. Knows nothing of what the texts stand for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from darkroom.images.codecs import Pixels
from darkroom.images.grid import tile

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_STRIKE = 4
"""Thickness of the line through a text that does not apply, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A text beside a row or column; crossed out where it does not apply."""

    text: str
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ink:
    """What texts are drawn with: a font file, or Pillow's own font; colours as `#rrggbb`."""

    font: Path | None = None
    active: str = "#000000"
    inactive: str = "#999999"
    background: str = "#ffffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    text: str
    font: Font
    width: int
    height: int
    active: bool


def captioned(
    pictures: Sequence[Pixels],
    columns: Sequence[Sequence[Caption]],
    rows: Sequence[Sequence[Caption]],
    *,
    margin: int = 0,
    ink: Ink,
) -> Pixels:
    """The pictures row by row, `len(columns)` in each, all as large as the largest, `margin` pixels apart.

    A column or row may have several texts, one under the other.
    """
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    size = max((width + height) // 25, 1)
    gap = size // 2
    has_rows = any(caption.text for captions in rows for caption in captions)
    left = width * 3 // 4 if has_rows else 0
    over = [list(_lines(captions, width, size, ink)) for captions in columns]
    beside = [list(_lines(captions, left, size, ink)) for captions in rows]
    top = max((_height(lines, gap) for lines in over), default=0)
    top = top + 2 * gap if top else 0
    body = _spread(tile(pictures, len(rows), ink.background), (width, height), margin, ink.background)
    sheet = Image.new("RGB", (body.width + left, body.height + top), ink.background)
    sheet.paste(body, (left, top))
    draw = ImageDraw.Draw(sheet)
    write = partial(_write, draw, gap, ink)
    for place, lines in enumerate(over):
        write(left + (width + margin) * place + width / 2, top / 2, lines)
    for place, lines in enumerate(beside):
        write(left / 2, top + (height + margin) * place + height / 2, lines)
    return np.asarray(sheet, dtype=np.uint8)


def _lines(captions: Sequence[Caption], width: int, size: int, ink: Ink) -> Iterator[_Line]:
    """Every text, broken between words to fit, and its letters made smaller where a word still does not."""
    for caption in captions:
        font = _font(ink, size)
        wrapped = "\n".join(_wrap(caption.text, font, width))
        small = size
        while small > 1 and _extent(wrapped, font)[0] > width:
            small -= 1
            font = _font(ink, small)
        yield _Line(
            text=wrapped,
            font=font,
            width=_extent(wrapped, font)[0],
            height=_extent(wrapped, font)[1],
            active=caption.active,
        )


def _wrap(text: str, font: Font, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _extent(text: str, font: Font) -> tuple[int, int]:
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return int(box[2] - box[0]), int(box[3] - box[1])


def _height(lines: Sequence[_Line], gap: int) -> int:
    return sum(line.height + gap for line in lines) - gap if any(line.text for line in lines) else 0


def _write(draw: ImageDraw.ImageDraw, gap: int, ink: Ink, x: float, y: float, lines: Sequence[_Line]) -> None:
    """Texts under one another, centred on a point."""
    y -= _height(lines, gap) / 2
    for line in lines:
        colour = ink.active if line.active else ink.inactive
        middle = y + line.height / 2
        draw.multiline_text((x, middle), line.text, font=line.font, fill=colour, anchor="mm", align="center")
        if not line.active:
            draw.line((x - line.width // 2, middle, x + line.width // 2, middle), fill=colour, width=_STRIKE)
        y += line.height + gap


def _spread(sheet: Pixels, cell: tuple[int, int], margin: int, background: str) -> Image.Image:
    """The cells of a grid moved apart."""
    whole = Image.fromarray(sheet)
    if margin <= 0:
        return whole
    columns, rows = whole.width // cell[0], whole.height // cell[1]
    wide = Image.new("RGB", (whole.width + margin * (columns - 1), whole.height + margin * (rows - 1)), background)
    for row in range(rows):
        for column in range(columns):
            box = (column * cell[0], row * cell[1], (column + 1) * cell[0], (row + 1) * cell[1])
            wide.paste(whole.crop(box), (column * (cell[0] + margin), row * (cell[1] + margin)))
    return wide


def _font(ink: Ink, size: int) -> Font:
    return ImageFont.truetype(str(ink.font), size) if ink.font else ImageFont.load_default(size)
