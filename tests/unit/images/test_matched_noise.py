import numpy as np
import pytest

from darkroom.images.matched_noise import fill_with_noise


def half_missing(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    slope = np.linspace(40, 200, side)[None, :, None].repeat(side, 0).repeat(3, 2)
    picture = (slope + np.array([0, 10, 20])).astype(np.uint8)
    missing = np.zeros((side, side), dtype=np.bool_)
    missing[:, side // 2 :] = True
    return picture, missing


def test_what_is_known_stays_and_what_is_missing_has_its_colours() -> None:
    picture, missing = half_missing()
    filled = fill_with_noise(picture, missing, falloff=1.0, variation=0.05)
    assert (filled[~missing] == picture[~missing]).all()
    for channel in range(3):
        known, noise = picture[..., channel][~missing], filled[..., channel][missing]
        assert known.min() - 1 <= noise.min()
        assert noise.max() <= known.max() + 1
        assert noise.mean() == pytest.approx(known.mean(), abs=2)
        assert noise.std() > 5


def test_the_same_picture_gets_the_same_noise() -> None:
    picture, missing = half_missing()
    once = fill_with_noise(picture, missing, falloff=1.0, variation=0.5)
    assert (once == fill_with_noise(picture, missing, falloff=1.0, variation=0.5)).all()


def test_channels_differ_as_far_as_they_may() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (48, 48, 1), dtype=np.uint8).repeat(3, 2)
    missing = np.zeros((48, 48), dtype=np.bool_)
    missing[:20] = True
    alike = fill_with_noise(grey, missing, falloff=1.0, variation=0.0)
    assert (alike[..., 0] == alike[..., 1]).all()
    apart = fill_with_noise(grey, missing, falloff=1.0, variation=1.0)
    assert (apart[..., 0] != apart[..., 1])[missing].mean() > 0.5
