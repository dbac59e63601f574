import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.images.masks import (
    CROP,
    FILL,
    STRETCH,
    Box,
    binary,
    blur,
    expand_box,
    fill_under,
    latent_mask,
    region,
    resize,
)
from darkroom.images.overlay import Finishing, make_overlay, widen

sides = st.integers(1, 90)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def boxed(width: int, height: int, box: tuple[int, int, int, int], level: int = 255) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(level, box)
    return mask


@given(width=sides, height=sides, to_width=sides, to_height=sides, mode=st.integers(0, 4))
def test_resizing_always_gives_the_size_asked_for(
    width: int, height: int, to_width: int, to_height: int, mode: int
) -> None:
    assert resize(noise(width, height), mode, to_width, to_height).size == (to_width, to_height)


@pytest.mark.parametrize("mode", [STRETCH, CROP, FILL])
def test_a_picture_of_the_right_size_is_left_alone(mode: int) -> None:
    picture = noise(24, 16)
    assert np.array_equal(np.asarray(resize(picture, mode, 24, 16)), np.asarray(picture))


def test_cropping_keeps_the_middle() -> None:
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    assert resize(picture, CROP, 20, 20).getcolors() == [(400, (0, 0, 255))]


def test_filling_repeats_the_borders() -> None:
    picture = Image.new("RGB", (20, 20), "red")
    wide = resize(picture, FILL, 60, 20)
    tall = resize(picture, FILL, 20, 60)
    assert wide.getcolors() == tall.getcolors() == [(1200, (255, 0, 0))]


def test_a_mask_without_transparency_is_its_grey_levels() -> None:
    grey = Image.new("L", (2, 1), 77)
    assert np.asarray(binary(grey)).tolist() == [[77, 77]]
    assert np.asarray(binary(grey.convert("RGBA"))).tolist() == [[77, 77]]


def test_a_transparent_mask_is_its_alpha_channel_above_128() -> None:
    mask = Image.fromarray(np.array([[[0, 0, 0, 128], [0, 0, 0, 129]]], dtype=np.uint8))
    assert np.asarray(binary(mask)).tolist() == [[0, 255]]
    assert np.asarray(binary(mask, rounded=False)).tolist() == [[128, 129]]


@given(sigma=st.integers(1, 40), level=st.integers(0, 255), width=sides, height=sides)
def test_blurring_keeps_an_even_mask_even(sigma: int, level: int, width: int, height: int) -> None:
    even = Image.new("L", (width, height), level)
    assert np.asarray(blur(even, sigma, sigma)).tolist() == np.asarray(even).tolist()


def test_blurring_is_symmetric_and_reaches_two_and_a_half_sigma() -> None:
    levels = np.asarray(blur(boxed(101, 101, (50, 0, 51, 101)), 4, 0))[50].astype(int)
    assert levels.tolist() == levels[::-1].tolist()
    assert np.flatnonzero(levels)[[0, -1]].tolist() == [40, 60]
    assert levels.argmax() == 50


def test_blurring_one_axis_leaves_the_other() -> None:
    mask = boxed(40, 40, (0, 10, 40, 20))
    assert np.array_equal(np.asarray(blur(mask, 4, 0)), np.asarray(mask))
    assert not np.array_equal(np.asarray(blur(mask, 0, 4)), np.asarray(mask))
    assert np.array_equal(np.asarray(blur(mask, 0, 0)), np.asarray(mask))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(st.integers(2, 300)), draw(st.integers(2, 300))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Box(left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))), width, height


@given(placed=boxes(), to_width=st.integers(8, 200), to_height=st.integers(8, 200))
def test_a_grown_box_holds_the_old_one_and_stays_inside(
    placed: tuple[Box, int, int], to_width: int, to_height: int
) -> None:
    box, width, height = placed
    grown = expand_box(box, (width, height), to_width, to_height)
    assert 0 <= grown.left <= box.left
    assert 0 <= grown.top <= box.top
    assert box.right <= grown.right <= width
    assert box.bottom <= grown.bottom <= height


def test_a_box_grows_to_the_aspect_ratio_where_there_is_room() -> None:
    assert expand_box(Box(100, 100, 120, 110), (400, 400), 64, 64) == Box(100, 95, 120, 115)
    assert expand_box(Box(100, 100, 110, 120), (400, 400), 128, 64) == Box(85, 100, 125, 120)


def test_the_region_is_padded_inside_the_picture() -> None:
    found = region(boxed(100, 100, (5, 40, 15, 50)), 10, 64, 64)
    assert found is not None
    assert found.left == 0
    assert (found.top, found.bottom) == (30, 60)


def test_a_black_mask_has_no_region() -> None:
    assert region(Image.new("L", (50, 50)), 10, 64, 64) is None


def test_filling_leaves_what_the_mask_does_not_cover() -> None:
    picture, mask = noise(64, 64), boxed(64, 64, (16, 16, 48, 48))
    filled = np.asarray(fill_under(picture, mask)).astype(int)
    outside = np.asarray(mask) == 0
    assert np.abs(filled - np.asarray(picture))[outside].max() <= 1
    assert np.abs(filled - np.asarray(picture))[~outside].max() > 50


def test_filling_takes_the_colour_of_the_surroundings() -> None:
    picture = Image.new("RGB", (64, 64), (10, 200, 30))
    picture.paste((255, 0, 0), (24, 24, 40, 40))
    filled = np.asarray(fill_under(picture, boxed(64, 64, (24, 24, 40, 40)))).astype(int)
    assert np.abs(filled - (10, 200, 30)).max() <= 6


def test_the_latent_mask_is_rounded_only_if_asked() -> None:
    mask = boxed(64, 64, (0, 0, 32, 64), level=100)
    assert set(np.unique(latent_mask(mask, (8, 8), rounded=True)).tolist()) == {0.0}
    soft = latent_mask(mask, (8, 8), rounded=False)
    assert soft.dtype == np.float32
    assert soft[0, 0] == pytest.approx(100 / 255)


def test_the_latent_mask_covers_the_cells_of_the_mask() -> None:
    cells = latent_mask(boxed(64, 48, (16, 8, 48, 24)), (6, 8), rounded=True)
    wanted = np.zeros((6, 8))
    wanted[1:3, 2:6] = 1
    assert cells.tolist() == wanted.tolist()


def test_widening_doubles_the_levels() -> None:
    mask = Image.fromarray(np.array([[0, 60, 128, 255]], dtype=np.uint8))
    assert np.asarray(widen(mask)).tolist() == [[0, 120, 255, 255]]


@given(left=st.integers(0, 30), top=st.integers(0, 30), width=st.integers(1, 30), height=st.integers(1, 30))
def test_nothing_outside_the_mask_changes(left: int, top: int, width: int, height: int) -> None:
    picture, drawn = noise(64, 64), np.full((64, 64, 3), 7, dtype=np.uint8)
    mask = boxed(64, 64, (left, top, left + width, top + height))
    result = Finishing(overlays=(make_overlay(picture, mask, STRETCH),)).apply(drawn, 0).picture
    inside = np.asarray(mask) > 0
    assert np.array_equal(result[~inside], np.asarray(picture)[~inside])
    assert (result[inside] == 7).all()


def test_a_region_is_pasted_where_it_was_cut() -> None:
    picture, mask = noise(100, 80), boxed(100, 80, (30, 20, 50, 40))
    finishing = Finishing(overlays=(make_overlay(picture, mask, STRETCH),), paste_to=Box(20, 10, 60, 50))
    result = finishing.apply(np.full((64, 64, 3), 7, dtype=np.uint8), 0).picture
    inside = np.asarray(mask) > 0
    assert result.shape == (80, 100, 3)
    assert np.array_equal(result[~inside], np.asarray(picture)[~inside])
    assert (result[inside] == 7).all()


def test_without_overlays_a_picture_is_finished_as_it_is() -> None:
    drawn = np.zeros((8, 8, 3), dtype=np.uint8)
    done = Finishing().apply(drawn, 3)
    assert np.array_equal(done.picture, drawn)
    assert done.uncorrected is done.mask is done.composite is None


def test_overlays_are_dealt_out_over_a_batch() -> None:
    empty = Image.new("L", (8, 8))
    overlays = tuple(make_overlay(Image.new("RGB", (8, 8), name), empty, STRETCH) for name in ("red", "blue"))
    drawn = np.zeros((8, 8, 3), dtype=np.uint8)
    finishing = Finishing(overlays=overlays)
    colours = [tuple(finishing.apply(drawn, index).picture[0, 0].tolist()) for index in range(3)]
    assert colours == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]


def test_a_picture_floored_to_multiples_of_eight_keeps_its_size() -> None:
    overlay = make_overlay(noise(70, 70), Image.new("L", (70, 70)), STRETCH)
    result = Finishing(overlays=(overlay,)).apply(np.zeros((64, 64, 3), dtype=np.uint8), 0).picture
    assert np.array_equal(result, np.asarray(noise(70, 70))[:64, :64])
