"""Cutting a picture into overlapping tiles and joining what became of them without a seam.

Knows pixels and places. Knows nothing of what happens to a tile in between.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Retouch = Generator[Image.Image, Image.Image, Image.Image]
"""Yields tiles, is sent what became of each, and gives the joined picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a picture of `width` x `height` is covered by tiles of one size; `xs` and `ys` are their left and top edges.

    Tiles share at least `overlap` pixels with their neighbours. With `mean` they do not fade into each other: where
    several lie, their mean counts.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    overlap: int
    xs: tuple[int, ...]
    ys: tuple[int, ...]
    mean: bool = False

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


def cover_for_network(size: tuple[int, int], side: int, overlap: int, *, mean: bool = False) -> Tiling:
    """The tiling of a picture of `size` for a network: squares of `side` pixels, none of them larger than the picture;
    0 is one tile for all. `overlap` may be as large as half a tile, what is above that is cut.

    With `mean` the tiles stand at equal steps from the left and from the top, and the last ones at the far border.
    """
    width, height = size
    if not side:
        return cover(size, size, 0)
    square = min(side, width, height) if mean else side
    tile = (min(square, width), min(square, height))
    shared = min(overlap, min(tile) // 2)
    if not mean:
        return cover(size, tile, shared)
    return Tiling(
        width=width,
        height=height,
        tile_width=tile[0],
        tile_height=tile[1],
        overlap=shared,
        xs=_strides(width, tile[0], shared),
        ys=_strides(height, tile[1], shared),
        mean=True,
    )


def _strides(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    return (*range(0, length - tile, tile - overlap), length - tile)


def _edges(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Where tiles begin along one side: evenly spread, the last one ending at the border."""
    if tile >= length:
        return (0,)
    count = max(math.ceil((length - overlap) / (tile - overlap)), 1)
    room = max(length - tile, 0)
    return tuple(room * place // max(count - 1, 1) for place in range(count))


def cut(picture: Image.Image, tiling: Tiling) -> list[Image.Image]:
    """The tiles, row by row. What of a tile lies outside a smaller picture is black."""
    return [_piece(picture, tiling, x, y) for y in tiling.ys for x in tiling.xs]


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


def retouch(picture: Image.Image, tiling: Tiling) -> Retouch:
    """The picture (RGB) made anew tile by tile. All tiles must grow by one whole factor, and so does the picture.

    No more than a row of tiles is kept beside the result.
    """
    return (yield from _averaged(picture, tiling) if tiling.mean else _faded(picture, tiling))


def _faded(picture: Image.Image, tiling: Tiling) -> Retouch:
    """As `join` does it."""
    factor, sheet, strip = 1, picture, picture
    for y in tiling.ys:
        for x in tiling.xs:
            tile = yield _piece(picture, tiling, x, y)
            factor = tile.width // tiling.tile_width
            if x == 0:
                strip = Image.new("RGB", (tiling.width * factor, tile.height))
            _fade_in(strip, tile, (x * factor, 0), tiling.overlap * factor if x else 0, along_x=True)
        if y == 0:
            sheet = Image.new("RGB", (tiling.width * factor, tiling.height * factor))
        _fade_in(sheet, strip, (0, y * factor), tiling.overlap * factor if y else 0, along_x=False)
    return sheet


def _averaged(picture: Image.Image, tiling: Tiling) -> Retouch:
    factor = 1
    total: NDArray[np.uint16] | None = None
    for y in tiling.ys:
        for x in tiling.xs:
            tile = yield _piece(picture, tiling, x, y)
            factor = tile.width // tiling.tile_width
            if total is None:
                total = np.zeros((tiling.height * factor, tiling.width * factor, 3), dtype=np.uint16)
            part = total[y * factor : y * factor + tile.height, x * factor : x * factor + tile.width]
            part += np.asarray(tile.convert("RGB"))
    assert total is not None, "a tiling has at least one tile"
    counts = np.outer(
        _layers(tiling.ys, tiling.tile_height, tiling.height), _layers(tiling.xs, tiling.tile_width, tiling.width)
    )
    layers = counts.repeat(factor, 0).repeat(factor, 1)[..., None]
    return Image.fromarray(((total + layers // 2) // layers).astype(np.uint8))


def _layers(edges: tuple[int, ...], tile: int, length: int) -> NDArray[np.uint16]:
    """How many tiles lie over each pixel of a side."""
    counts = np.zeros(length, dtype=np.uint16)
    for edge in edges:
        counts[edge : edge + tile] += 1
    return counts


def _piece(picture: Image.Image, tiling: Tiling, x: int, y: int) -> Image.Image:
    return picture.crop((x, y, x + tiling.tile_width, y + tiling.tile_height))


def _fade_in(ground: Image.Image, tile: Image.Image, place: tuple[int, int], overlap: int, *, along_x: bool) -> None:
    mask = np.full((tile.height, tile.width), 255, dtype=np.uint8)
    if overlap:
        ramp = (np.arange(overlap) * 255 / overlap).astype(np.uint8)
        if along_x:
            mask[:, :overlap] = ramp[: tile.width]
        else:
            mask[:overlap, :] = ramp[: tile.height, None]
    ground.paste(tile.convert("RGB"), place, Image.fromarray(mask))
