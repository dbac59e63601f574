"""Enlarging pictures: exact sizes whatever the upscaler does, and the original's detours where they show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.images.upscale import BUILT_IN, RESAMPLERS, Enlarge, enlarge_by, enlarge_to
from tests.unit.api.conftest import noise

SIDES = st.integers(8, 70)


def doubling(calls: list[tuple[int, int]]) -> Enlarge:
    """A network of factor 2, which notes what it is shown."""

    def enlarge(picture: Image.Image, scale: float) -> Image.Image:
        calls.append(picture.size)
        return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)

    return enlarge


def pixels(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(picture, dtype=np.uint8)


@given(width=SIDES, height=SIDES, target=st.tuples(SIDES, SIDES), name=st.sampled_from(BUILT_IN))
def test_the_result_has_exactly_the_size_that_was_asked_for(
    width: int, height: int, target: tuple[int, int], name: str
) -> None:
    enlarged = enlarge_to(pixels(noise(width, height)), target, RESAMPLERS.get(name))
    assert enlarged.shape == (target[1], target[0], 3)


def test_without_an_upscaler_it_is_lanczos_in_one_step() -> None:
    picture = noise(16, 16)
    expected = picture.resize((44, 28), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(enlarge_to(pixels(picture), (44, 28), None), pixels(expected))


def test_an_upscaler_s_result_passes_through_a_multiple_of_eight() -> None:
    picture = noise(16, 16)
    by_scale = picture.resize((44, 44), Image.Resampling.LANCZOS).resize((40, 40), Image.Resampling.LANCZOS)
    expected = by_scale.resize((44, 44), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(enlarge_to(pixels(picture), (44, 44), RESAMPLERS["Lanczos"]), pixels(expected))


def test_nearest_repeats_pixels() -> None:
    picture = pixels(noise(8, 8))
    doubled = enlarge_to(picture, (16, 16), RESAMPLERS["Nearest"])
    np.testing.assert_array_equal(doubled, picture.repeat(2, 0).repeat(2, 1))


def test_a_picture_that_shrinks_is_not_shown_to_the_upscaler() -> None:
    calls: list[tuple[int, int]] = []
    enlarge_to(pixels(noise(32, 32)), (16, 24), doubling(calls))
    assert calls == []


@pytest.mark.parametrize(
    ("scale", "shown"),
    [(1, [(16, 16)]), (2, [(16, 16)]), (3, [(16, 16), (32, 32)]), (100, [(16, 16), (32, 32), (64, 64)])],
)
def test_a_network_of_a_small_factor_runs_at_most_three_times(scale: float, shown: list[tuple[int, int]]) -> None:
    calls: list[tuple[int, int]] = []
    enlarged = enlarge_by(noise(16, 16), scale, doubling(calls))
    assert calls == shown
    assert enlarged.size == (16 * scale, 16 * scale)


def test_a_network_that_enlarges_nothing_is_not_asked_again() -> None:
    calls = []

    def denoiser(picture: Image.Image, scale: float) -> Image.Image:
        calls.append(scale)
        return picture

    assert enlarge_by(noise(16, 16), 2, denoiser).size == (32, 32)
    assert calls == [2]
