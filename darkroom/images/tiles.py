"""Cutting a picture into overlapping tiles and joining what became of them without a seam.

Knows pixels and places. Knows nothing of what happens to a tile in between.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a picture of `width` x `height` is covered by tiles of one size; `xs` and `ys` are their left and top edges.

    Tiles share at least `overlap` pixels with their neighbours.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    overlap: int
    xs: tuple[int, ...]
    ys: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.xs) * len(self.ys)


def cover(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> Tiling:
    """The tiling of a picture of `size` by tiles of size `tile`, whose sides `overlap` must be smaller than."""
    return Tiling(
        width=size[0],
        height=size[1],
        tile_width=tile[0],
        tile_height=tile[1],
        overlap=overlap,
        xs=_edges(size[0], tile[0], overlap),
        ys=_edges(size[1], tile[1], overlap),
    )


def _edges(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Where tiles begin along one side: evenly spread, the last one ending at the border."""
    count = max(math.ceil((length - overlap) / (tile - overlap)), 1)
    room = max(length - tile, 0)
    return tuple(room * place // max(count - 1, 1) for place in range(count))


def cut(picture: Image.Image, tiling: Tiling) -> list[Image.Image]:
    """The tiles, row by row. What of a tile lies outside a smaller picture is black."""
    width, height = tiling.tile_width, tiling.tile_height
    return [picture.crop((x, y, x + width, y + height)) for y in tiling.ys for x in tiling.xs]


def join(tiles: Sequence[Image.Image], tiling: Tiling) -> Image.Image:
    """One picture of all tiles, which must have their size: every one fades in over the overlap with the one before."""
    columns = len(tiling.xs)
    sheet = Image.new("RGB", (tiling.width, tiling.height))
    for row, y in enumerate(tiling.ys):
        strip = Image.new("RGB", (tiling.width, tiling.tile_height))
        for column, x in enumerate(tiling.xs):
            _fade_in(strip, tiles[row * columns + column], (x, 0), tiling.overlap if x else 0, along_x=True)
        _fade_in(sheet, strip, (0, y), tiling.overlap if y else 0, along_x=False)
    return sheet


def _fade_in(ground: Image.Image, tile: Image.Image, place: tuple[int, int], overlap: int, *, along_x: bool) -> None:
    mask = np.full((tile.height, tile.width), 255, dtype=np.uint8)
    if overlap:
        ramp = (np.arange(overlap) * 255 / overlap).astype(np.uint8)
        if along_x:
            mask[:, :overlap] = ramp[: tile.width]
        else:
            mask[:overlap, :] = ramp[: tile.height, None]
    ground.paste(tile.convert("RGB"), place, Image.fromarray(mask))
