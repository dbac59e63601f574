"""Colours of one picture brought to those of another: CIELAB in 8 bits, histograms, and luminosity.

Knows pixels only. The arithmetic of Lab is that of OpenCV's 8-bit conversion (fixed point, bit for bit), because a
histogram matched on other roundings is another histogram.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from darkroom.images.codecs import Pixels

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_GAMMA_BITS = 3
_LAB_BITS = 12
_CURVE_BITS = _LAB_BITS + _GAMMA_BITS
_BASE = 1 << 14
_INVERSE_LEVELS = 1 << 12
_LOWEST = -8145
_HIGHEST = _BASE * 9 // 4 + _LOWEST

# sRGB under D65, as OpenCV has it; rows give X, Y, Z and R, G, B.
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_TO_RGB = np.array([[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]])
_WHITE = np.array([0.950456, 1.0, 1.088754])

_LUMA = np.array([0.299, 0.587, 0.114])


def match_colours(picture: Pixels, target: Pixels) -> Pixels:
    """The picture with the target's colours and its own luminosity. A1111: "color correction"."""
    lab, wanted = to_lab(picture), to_lab(target)
    matched = np.stack([match_histogram(lab[..., i], wanted[..., i]) for i in range(3)], axis=-1)
    return with_luminosity(to_rgb(matched), picture)


def match_histogram(levels: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The levels changed so that they are distributed like those wanted, truncated.

    Every level goes to the one with the same share of levels below, on a line between neighbours (Gonzalez and Woods,
    histogram specification).
    """
    have = np.cumsum(np.bincount(levels.ravel(), minlength=256)) / levels.size
    counts = np.bincount(wanted.ravel())
    present = np.flatnonzero(counts)
    share = np.cumsum(counts[present]) / wanted.size
    matched: NDArray[np.uint8] = np.interp(have, share, present).astype(np.uint8)[levels]
    return matched


def with_luminosity(colours: Pixels, luminosity: Pixels) -> Pixels:
    """Hue and saturation of one picture, luminosity of another: the blend mode of that name.

    W3C Compositing and Blending Level 1, "Non-separable blend modes", SetLum and ClipColor.
    """
    base = colours / 255
    moved = base + ((luminosity / 255 - base) @ _LUMA)[..., None]
    light = (moved @ _LUMA)[..., None]
    low, high = moved.min(axis=-1, keepdims=True), moved.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(low < 0, light + (moved - light) * light / (light - low), moved)
        moved = np.where(high > 1, light + (moved - light) * (1 - light) / (high - light), moved)
    blended: Pixels = (moved * 255).clip(0, 255).astype(np.uint8)  # A1111: no rounding
    return blended


def to_lab(picture: Pixels) -> NDArray[np.uint8]:
    """SRGB `[H, W, 3]` to CIELAB: L by 255/100, a and b plus 128."""
    linear = _table(256, lambda i: _decoded(i / 255) * (255 << _GAMMA_BITS))[picture]
    curve = _table(256 * 3 // 2 << _GAMMA_BITS, lambda i: _root(i / (255 << _GAMMA_BITS)) * (1 << _CURVE_BITS))
    matrix = np.rint((1 << _LAB_BITS) * _TO_XYZ / _WHITE[:, None]).astype(np.int64)
    x, y, z = np.moveaxis(curve[_shifted(linear @ matrix.T, _LAB_BITS)], -1, 0)
    middle = 128 << _CURVE_BITS
    lightness = (116 * 255 + 50) // 100 * y - (16 * 255 * (1 << _CURVE_BITS) + 50) // 100
    lab = np.stack([lightness, 500 * (x - y) + middle, 200 * (y - z) + middle], axis=-1)
    return _shifted(lab, _CURVE_BITS).clip(0, 255).astype(np.uint8)


def to_rgb(lab: NDArray[np.uint8]) -> Pixels:
    """CIELAB as `to_lab` gives it to sRGB `[H, W, 3]`."""
    lightness, a, b = np.moveaxis(lab.astype(np.int64), -1, 0)
    levels = np.arange(256, dtype=np.float64)
    roots = _BASE * (levels * 100 / (255 * 116) + 16 / 116)
    lights = np.where(levels <= 20, levels * _BASE * 180 / (17 * 29**3), roots**3 / _BASE**2)
    root, y = np.rint(roots).astype(np.int64)[lightness], np.rint(lights).astype(np.int64)[lightness]
    x_root = root + ((5 * a * 53687 + (1 << 7)) >> 13) - 128 * _BASE // 500
    z_root = root - ((b * 41943 + (1 << 4)) >> 9) + 128 * _BASE // 200 - 1
    cubes = _cubes()
    xyz = np.stack([cubes[x_root - _LOWEST], y, cubes[z_root - _LOWEST]], axis=-1)
    matrix = np.rint((1 << _LAB_BITS) * _TO_RGB * _WHITE).astype(np.int64)
    linear = _shifted(xyz @ matrix.T, _LAB_BITS + 14 - 12).clip(0, _INVERSE_LEVELS - 1)
    encoded = _table(_INVERSE_LEVELS, lambda i: _encoded(i / _INVERSE_LEVELS) * 255).astype(np.uint8)
    picture: Pixels = encoded[linear]
    return picture


def _table(size: int, function: Callable[[Floats], Floats]) -> Whole:
    return np.rint(function(np.arange(size, dtype=np.float64))).astype(np.int64)


def _shifted(values: Whole, bits: int) -> Whole:
    """Divided by a power of two, rounded."""
    return (values + (1 << (bits - 1))) >> bits


def _decoded(x: Floats) -> Floats:
    """SRGB to linear light, both 0..1 (IEC 61966-2-1)."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _encoded(x: Floats) -> Floats:
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)


def _root(x: Floats) -> Floats:
    """CIELAB's f: a cube root, with a straight line near 0."""
    return np.where(x < 216 / 24389, x * 841 / 108 + 16 / 116, np.cbrt(x))


def _cubes() -> Whole:
    """The inverse of `_root` for `_LOWEST` and up, in whole numbers that are cut off as C does."""
    i = np.arange(_LOWEST, _HIGHEST, dtype=np.int64)
    line = np.trunc(i * 108 / 841).astype(np.int64) - _BASE * 16 // 116 * 108 // 841
    return np.where(i <= 3390, line, i * i // _BASE * i // _BASE)
