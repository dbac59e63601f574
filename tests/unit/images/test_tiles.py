from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom.images.tiles import Retouch, cover, cover_for_network, cut, join, retouch

sides = st.integers(8, 90)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(deadline=None, max_examples=30)
@given(width=sides, height=sides, tile=st.integers(24, 48), overlap=st.integers(0, 15))
def test_tiles_that_nobody_touched_join_to_the_picture(width: int, height: int, tile: int, overlap: int) -> None:
    source = picture(width, height)
    tiling = cover(source.size, (tile, tile), overlap)
    joined = np.asarray(join(cut(source, tiling), tiling)).astype(int)
    assert np.abs(joined - np.asarray(source)).max() <= 1  # a blend of two equal levels may round


@given(length=st.integers(8, 400), tile=st.integers(16, 64), overlap=st.integers(0, 15))
def test_neighbours_share_at_least_the_overlap(length: int, tile: int, overlap: int) -> None:
    edges = cover((length, length), (tile, tile), overlap).xs
    assert edges[0] == 0
    assert edges[-1] + tile >= length
    assert all(left + tile - right >= overlap for left, right in pairwise(edges))


def test_a_tile_fades_in_over_the_one_before() -> None:
    tiling = cover((48, 32), (32, 32), 16)
    black, white = Image.new("RGB", (32, 32), "black"), Image.new("RGB", (32, 32), "white")
    line = np.asarray(join([black, white], tiling))[8, :, 0].astype(int)
    assert line[:17].max() == 0
    assert line[32:].min() == 255
    assert (np.diff(line) >= 0).all()


def test_a_picture_smaller_than_a_tile_is_one_tile_with_a_black_rest() -> None:
    tiling = cover((20, 20), (32, 32), 8)
    [tile] = cut(Image.new("RGB", (20, 20), "white"), tiling)
    assert tiling.count == 1
    assert tile.size == (32, 32)
    assert tile.getpixel((31, 31)) == (0, 0, 0)
    assert join([tile], tiling).size == (20, 20)


@pytest.mark.parametrize("overlap", [0, 32])
def test_the_tiling_of_a_wide_picture_is_even(overlap: int) -> None:
    assert cover((192, 128), (128, 128), overlap).xs == (0, 64)


def doubled(tile: Image.Image) -> Image.Image:
    return tile.resize((tile.width * 2, tile.height * 2), Image.Resampling.NEAREST)


def run(steps: Retouch, shown: list[tuple[int, int]] | None = None) -> Image.Image:
    """What becomes of a picture whose tiles are doubled; `shown` takes down the sizes of the tiles."""
    try:
        tile = next(steps)
        while True:
            if shown is not None:
                shown.append(tile.size)
            tile = steps.send(doubled(tile))
    except StopIteration as end:
        result: Image.Image = end.value
        return result


@settings(deadline=None, max_examples=40)
@given(width=sides, height=sides, side=st.sampled_from([0, 16, 32, 48]), overlap=st.integers(0, 48), mean=st.booleans())
def test_a_picture_made_anew_in_tiles_is_the_one_made_anew_at_once(
    width: int, height: int, side: int, overlap: int, mean: bool
) -> None:
    source = picture(width, height)
    tiling = cover_for_network(source.size, side, overlap, mean=mean)
    shown: list[tuple[int, int]] = []
    result = np.asarray(run(retouch(source, tiling), shown)).astype(int)
    assert np.abs(result - np.asarray(doubled(source))).max() <= 1  # a blend of equal levels may round
    assert len(shown) == tiling.count
    assert all(w <= width and h <= height for w, h in shown)
    assert not side or max(map(max, shown)) <= side


def test_means_are_taken_where_several_tiles_lie() -> None:
    tiling = cover_for_network((48, 32), 32, 16, mean=True)
    assert tiling.xs == (0, 16)
    steps = retouch(Image.new("RGB", (48, 32)), tiling)
    next(steps)
    steps.send(Image.new("RGB", (32, 32), "black"))
    with pytest.raises(StopIteration) as end:
        steps.send(Image.new("RGB", (32, 32), "white"))
    line = np.asarray(end.value.value)[8, :, 0]
    assert [set(part.tolist()) for part in (line[:16], line[16:32], line[32:])] == [{0}, {128}, {255}]
