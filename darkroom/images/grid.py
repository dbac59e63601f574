"""Tiles several pictures into one. Knows nothing of what they show."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import ImageColor

from darkroom.images.codecs import Pixels


def count_rows(pictures: int, *, rows: int = -1, batch_size: int = 1, prevent_empty_spots: bool = False) -> int:
    """How many rows a grid gets: `rows` if positive, the batch size if 0, else about the square root."""
    if rows > 0:
        wanted = rows
    elif rows == 0:
        wanted = batch_size
    elif prevent_empty_spots:
        wanted = next(n for n in range(math.isqrt(pictures), 0, -1) if pictures % n == 0)
    else:
        wanted = round(math.sqrt(pictures))
    return min(wanted, pictures)


def tile(pictures: Sequence[Pixels], rows: int, background: str = "#ffffff") -> Pixels:
    """One picture of all, row by row; each is centred in a cell of the largest width and height."""
    columns = math.ceil(len(pictures) / rows)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    sheet = np.empty((rows * height, columns * width, 3), dtype=np.uint8)
    sheet[:] = ImageColor.getrgb(background)[:3]
    for place, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        top = place // columns * height + (height - h) // 2
        left = place % columns * width + (width - w) // 2
        sheet[top : top + h, left : left + w] = picture[..., :3]
    return sheet
