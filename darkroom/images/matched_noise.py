"""Fills what is missing of a picture with noise that resembles the rest: in spectrum, and in the levels of its colours.

Knows pixels. Knows nothing of what is drawn over the noise afterwards.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.images.codecs import Pixels

Plane = NDArray[np.float64]

_SEED = 0
_TINY = 1e-12


def fill_with_noise(picture: Pixels, missing: NDArray[np.bool_], *, falloff: float, variation: float) -> Pixels:
    """The picture `[H, W, 3]` with noise where `missing` `[H, W]` is set; something must be left of it.

    With F the spectrum of white noise and S that of the picture, the noise has the spectrum
    |F|^2 |S|^falloff exp(i arg S), and the histogram of what is left, channel by channel. `variation`, 0..1, is how far
    the channels' noises differ.
    """
    levels = picture.astype(np.float64) / 255
    known = ~missing
    window = _window(known)
    mean = levels[known].mean(axis=0)
    softened = levels * window[..., None] + mean * (1 - window[..., None])
    white = np.random.default_rng(_SEED).random(levels.shape)
    white = variation * white + (1 - variation) * white.mean(axis=2, keepdims=True)
    filled = levels.copy()
    for channel in range(3):
        shaped = _shaped(softened[..., channel], white[..., channel], falloff)
        filled[..., channel][missing] = _matched(shaped[missing], levels[..., channel][known])
    return (filled.clip(0, 1) * 255).astype(np.uint8)


def _window(known: NDArray[np.bool_]) -> Plane:
    """1 well inside of what is known, falling to 0 at its border, so that the border leaves no line in the spectrum."""
    rows, columns = np.nonzero(known)
    weights = np.zeros(known.shape)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    bell = np.sqrt(np.outer(np.hanning(bottom - top + 2)[1:-1], np.hanning(right - left + 2)[1:-1]))
    weights[top:bottom, left:right] = bell
    return weights * known


def _shaped(picture: Plane, white: Plane, falloff: float) -> Plane:
    source: NDArray[Any] = np.fft.fft2(picture)
    noise: NDArray[Any] = np.fft.fft2(white)
    strength = np.abs(source)
    phase = source / np.maximum(strength, _TINY)
    spectrum = np.abs(noise) ** 2 * strength**falloff * phase
    spectrum[0, 0] = 0  # the mean is the histogram's business
    return np.real(np.fft.ifft2(spectrum))


def _matched(values: Plane, like: Plane) -> Plane:
    """The values in their order, with the distribution of others."""
    order = np.argsort(values, kind="stable")
    wanted = np.quantile(like, np.linspace(0, 1, len(values)))
    result = np.empty_like(values)
    result[order] = wanted
    return result
