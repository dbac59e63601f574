"""Soft inpainting: old and new latents flow into each other instead of meeting at the mask's edge.

The arithmetic is that of the extension of this name which comes with A1111: a mask that hardens as the noise goes, a
mean of two latents that keeps their lengths, and a cover that follows how far the result has moved. Knows latents; what
the cover does to pixels is somebody else's.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darkroom.jobs.spec import Picture, SoftInpainting
from darkroom.sampling.filters import Mix
from darkroom.sampling.names import Family
from darkroom.sampling.rectified import to_ratio
from darkroom.sampling.tables import NoiseTable

_RADIUS = 2
_SPREAD = 1.5
_CELL = 8
"""Pixels of a picture per side of a latent's cell."""

Map = NDArray[np.float64]
"""One number per cell of a latent, `[h, w]`."""


def soft_mix(soft: SoftInpainting, init: Tensor, mask: Tensor, family: Family, table: NoiseTable) -> Mix:
    """The rule by which samplers of a family repaint the clean latent `init` `[C, h, w]` under `mask` `[h, w]`."""

    def mix(painted: Tensor, sigma: float) -> Tensor:
        # A1111: samplers that count training timesteps take that number for the noise level.
        level = sigma if family == "sigma" else table.timestep_of(sigma)
        level = to_ratio(sigma) if table.flow else level
        return soft_blend(init, painted, faded(mask, soft, level), soft.contrast)

    return mix


def faded(mask: Tensor, soft: SoftInpainting, level: float) -> Tensor:
    """The mask `[h, w]` at a noise level: at a low one even its dark parts are repainted in full."""
    return torch.pow(mask, level**soft.power * soft.scale)


def soft_blend(kept: Tensor, painted: Tensor, mask: Tensor, contrast: float) -> Tensor:
    """The weighted mean of two latents `[..., C, h, w]`, as long in each cell as the mean of their lengths.

    That mean is of order `contrast`: the higher, the nearer to the longer of the two. A plain mean of latents that
    point elsewhere is too short, which shows as blur.
    """
    mean = kept * (1 - mask) + painted * mask
    weight = mask.double()
    wanted = (_length(kept) ** contrast * (1 - weight) + _length(painted) ** contrast * weight) ** (1 / contrast)
    blended: Tensor = mean * (wanted / (_length(mean) + 1e-5)).to(mean.dtype)
    return blended


def _length(latent: Tensor) -> Tensor:
    """Length over the channels, in double precision because it is raised to high powers: `[..., 1, h, w]`."""
    length: Tensor = torch.linalg.vector_norm(latent, dim=-3, keepdim=True)
    return length.double()


def with_cover(picture: Picture, cover: NDArray[np.uint8]) -> Picture:
    """The picture with a fourth channel: the cover of each cell, repeated over the cell's pixels."""
    height, width = picture.shape[:2]
    spread = cover.repeat(_CELL, axis=0).repeat(_CELL, axis=1)[:height, :width]
    return np.dstack([picture, spread])


def cover_of(soft: SoftInpainting, latent: Tensor, init: Tensor, mask: Tensor) -> NDArray[np.uint8]:
    """How much of the new picture shows in each cell `[h, w]`, 0..255: the further it is from the old, the more."""
    moved: Map = torch.linalg.vector_norm((latent - init).float(), dim=0).cpu().numpy().astype(np.float32)
    moved = weighted_mean(moved, 0.9, 1.0)
    moved = weighted_mean(moved, 0.25, 0.75)
    darkness = 1 - mask.float().clamp(0, 1).cpu().numpy() ** (soft.scale / 2)
    share = 0.5 * (1 - soft.mask_influence) + darkness * soft.mask_influence
    half_way = soft.threshold * share / (1.00001 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        old = _smootherstep(1 / (1 + (moved / half_way) ** soft.sharpness))
    return (255.0 * (1 - np.nan_to_num(old))).astype(np.uint8)


def weighted_mean(cells: Map, low: float, high: float) -> Map:
    """Per cell the mean of its neighbours between two percentiles (0..1), nearer ones weighing more.

    The window between the percentiles is never narrower than the weight of one cell.
    """
    values, weights = _neighbours(cells)
    order = np.argsort(values, axis=0, kind="stable")
    values, weights = np.take_along_axis(values, order, 0), np.take_along_axis(weights, order, 0)
    ends = np.cumsum(weights, axis=0)
    first, last = _window(ends[-1], low, high)
    overlap = (np.minimum(last, ends) - np.maximum(first, ends - weights)).clip(min=0)
    mean = (values * overlap).sum(axis=0) / overlap.sum(axis=0)
    exact: Map = mean.astype(cells.dtype)  # the original keeps float32
    return exact


def _window(total: Map, low: float, high: float) -> tuple[Map, Map]:
    """Both ends of the window in a stack of this height, at least 1 apart and inside where they can be."""
    first, last = total * low, total * high
    middle = (first + last) / 2
    narrow = last - first < 1
    first, last = np.where(narrow, middle - 0.5, first), np.where(narrow, middle + 0.5, last)
    above = narrow & (last > total)
    first, last = np.where(above, total - 1, first), np.where(above, total, last)
    below = narrow & (first < 0)
    return np.where(below, 0.0, first), np.where(below, 1.0, last)


def _neighbours(cells: Map) -> tuple[Map, Map]:
    """Values and weights `[25, h, w]` of the cells around each one; outside the map the weight is 0."""
    height, width = cells.shape
    padded = np.pad(cells.astype(np.float64), _RADIUS)
    inside = np.pad(np.ones(cells.shape), _RADIUS)
    span = range(2 * _RADIUS + 1)
    shifts = [(slice(y, y + height), slice(x, x + width)) for y in span for x in span]
    weights = [_weight(y - _RADIUS, x - _RADIUS) for y in span for x in span]
    return (
        np.stack([padded[shift] for shift in shifts]),
        np.stack([inside[shift] * weight for shift, weight in zip(shifts, weights, strict=True)]),
    )


def _weight(dy: int, dx: int) -> float:
    """A Gaussian's height at this distance, lowered and stretched so that it is 0 one cell beyond the radius."""
    floor = math.exp(-(((_RADIUS + 1) / _SPREAD) ** 2))
    return max(0.0, (math.exp(-(dy * dy + dx * dx) / _SPREAD**2) - floor) / (1 - floor))


def _smootherstep(x: Map) -> Map:
    """6x^5 - 15x^4 + 10x^3 (Perlin 2002)."""
    smooth: Map = x * x * x * (x * (6 * x - 15) + 10)
    return smooth
