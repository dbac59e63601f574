"""Lab in 8 bits, histograms and luminosity."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from darkroom.images.codecs import Pixels
from darkroom.images.colours import match_colours, match_histogram, to_lab, to_rgb, with_luminosity

pictures = arrays(np.uint8, (6, 5, 3))


def pixel(*levels: int) -> Pixels:
    return np.array([[levels]], dtype=np.uint8)


def noise(seed: int, low: int = 0, high: int = 256) -> Pixels:
    return np.random.default_rng(seed).integers(low, high, (40, 30, 3), dtype=np.uint8)


def rgb(file: bytes) -> Pixels:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("colour", "lab"),
    [
        # What OpenCV 4's 8-bit conversion answers.
        ((255, 255, 255), (255, 128, 128)),
        ((0, 0, 0), (0, 128, 128)),
        ((255, 0, 0), (136, 208, 195)),
        ((0, 255, 0), (224, 42, 211)),
        ((0, 0, 255), (82, 207, 20)),
        ((128, 128, 128), (137, 128, 128)),
    ],
)
def test_pure_colours_have_their_place_in_lab(colour: tuple[int, ...], lab: tuple[int, ...]) -> None:
    assert to_lab(pixel(*colour))[0, 0].tolist() == list(lab)


@given(level=st.integers(0, 255))
def test_greys_survive_the_way_to_lab_and_back(level: int) -> None:
    back = to_rgb(to_lab(pixel(level, level, level)))[0, 0].astype(int)
    assert np.abs(back - level).max() <= 1


def test_most_colours_come_back_from_lab_nearly_as_they_were() -> None:
    picture = noise(0)
    difference = np.abs(to_rgb(to_lab(picture)).astype(int) - picture)
    assert difference.mean() < 1


def test_matching_a_histogram_gives_the_wanted_distribution() -> None:
    levels, wanted = noise(1)[..., 0], noise(2, 90, 120)[..., 0]
    matched = match_histogram(levels, wanted)
    assert matched.min() >= 90
    assert matched.max() <= 120
    assert abs(float(matched.mean()) - float(wanted.mean())) < 1.5


@given(levels=arrays(np.uint8, (7, 4)))
def test_a_picture_matched_to_itself_stays(levels: Pixels) -> None:
    assert np.array_equal(match_histogram(levels, levels), levels)


def test_matching_keeps_the_order_of_levels() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    matched = match_histogram(levels, noise(3)[..., 0]).ravel().astype(int)
    assert (np.diff(matched) >= 0).all()


@given(colours=pictures, luminosity=pictures)
def test_luminosity_comes_from_the_second_picture(colours: Pixels, luminosity: Pixels) -> None:
    weights = np.array([0.299, 0.587, 0.114])
    blended = with_luminosity(colours, luminosity)
    # Three channels, each cut off, are at most one level too dark.
    difference = luminosity @ weights - blended @ weights
    assert difference.min() > -0.01
    assert difference.max() < 1.01


def test_the_colours_of_one_picture_go_to_another() -> None:
    red = np.zeros((20, 20, 3), dtype=np.uint8) + np.array([200, 40, 40], dtype=np.uint8)
    grey = np.repeat(noise(4, 60, 120)[..., :1], 3, axis=2)
    corrected = match_colours(grey, red).astype(int)
    assert (corrected[..., 0] - corrected[..., 1]).mean() > 50
    assert np.abs(corrected[..., 1] - corrected[..., 2]).mean() < 20


def test_a_recorded_correction_is_met_by_a_level(recordings: Path) -> None:
    cases = recordings / "cases"
    asked = json.loads((cases / "img2img_color_correction.json").read_text())["body"]
    start = rgb(base64.b64decode(asked["init_images"][0]))
    # The same request, but for the correction.
    plain, expected = (
        rgb((cases / f"{name}.0.png").read_bytes()) for name in ("img2img_image_cfg", "img2img_color_correction")
    )
    difference = np.abs(match_colours(plain, start).astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.001
