"""The noise levels that a model was trained on, and the way between levels and timesteps.

Knows nothing of samplers' steps, images or networks. Levels are computed in float32, like the tables that checkpoints
were trained on, so that they agree with recorded ones.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.sampling.names import Sampler
from darkroom.sampling.options import STABLE_DIFFUSION, SamplingOptions, Training
from darkroom.sampling.rectified import shift_of_area, shifted

ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Ten steps tuned for SD 1 and for SDXL: Sabour et al. 2024, arXiv:2404.14507, appendix B."""

_NO_PICTURE_LEFT = 4.8973451890853435e-08
"""The last cumulative product of a table that ends without signal. A1111: not zero, so that levels stay finite."""

_LCM_STRIDE = 20
"""Latent consistency models are distilled on every 20th timestep: Luo et al. 2023, arXiv:2310.04378, section 4.3."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTable:
    """The noise levels of the training timesteps, ascending: x = x0 + sigma * noise.

    Between two entries `marks` are interpolated: the logarithms of sigma, or those of 1 / alpha where `by_alpha`. The
    entries are `stride` timesteps apart. `quantized` finds only timesteps of entries. `noise_only` models predict
    noise, whatever their checkpoint says. `aligned` is the family's Align Your Steps schedule. With `flow` levels are
    those of flow matching instead: x = (1 - sigma) * x0 + sigma * noise.
    """

    sigmas: tuple[float, ...]
    marks: tuple[float, ...]
    by_alpha: bool = False
    stride: int = 1
    quantized: bool = False
    noise_only: bool = False
    aligned: tuple[float, ...] = ALIGNED
    flow: bool = False

    @classmethod
    def flow_matching(cls, shift: float, n: int = 1000) -> Self:
        """Times spaced evenly in 1/n..1, shifted towards the noise."""
        sigmas = tuple(shifted((i + 1) / n, shift) for i in range(n))
        return cls(sigmas, tuple(map(math.log, sigmas)), flow=True)

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, n: int = 1000) -> Self:
        """The table of `scaled_linear_alphas`."""
        return cls.from_alphas(scaled_linear_alphas(start, end, n))

    @classmethod
    def from_alphas(
        cls,
        alphas: Tensor,
        *,
        stride: int = 1,
        quantized: bool = False,
        noise_only: bool = False,
        aligned: tuple[float, ...] = ALIGNED,
    ) -> Self:
        """From the cumulative products of 1 - beta, `[timesteps]`, computed in their precision."""
        levels = ((1 - alphas) / alphas).sqrt()
        sigmas = tuple(levels.tolist())
        half = alphas.dtype == torch.float16
        marks = tuple(levels.log().tolist()) if half else tuple(math.log(sigma) for sigma in sigmas)
        return cls(sigmas, marks, False, stride, quantized, noise_only, aligned)

    @classmethod
    def continuous(cls, alphas: Tensor) -> Self:
        """As `from_alphas`, but the logarithms of alpha are interpolated."""
        marks = tuple((alphas.log() / -2).tolist())
        return cls(tuple(_alpha_level(mark) for mark in marks), marks, by_alpha=True)

    @property
    def sigma_min(self) -> float:
        """The lowest level, of the first entry."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        """The highest level, of the last timestep."""
        return self.sigmas[-1]

    @property
    def first_timestep(self) -> int:
        """The timestep of the lowest level."""
        return self.stride - 1

    @property
    def last_timestep(self) -> int:
        """The timestep of the highest level."""
        return len(self.sigmas) * self.stride - 1

    def sigma_of(self, t: float) -> float:
        """The level of a timestep, clamped to the table; fractional ones by interpolating the marks."""
        place = min(max((t + 1) / self.stride - 1, 0), len(self.sigmas) - 1)
        low, high = math.floor(place), math.ceil(place)
        if low == high:
            return self.sigmas[low]
        mark = self.marks[low] + (place - low) * (self.marks[high] - self.marks[low])
        return _alpha_level(mark) if self.by_alpha else math.exp(mark)

    def timestep_of(self, sigma: float) -> float:
        """The (fractional) timestep of a level, clamped to the table; exact where the level is one of the table's."""
        return float((self._place_of(sigma) + 1) * self.stride - 1)

    def told(self, sigma: float) -> float:
        """What the network is told of a level: its timestep, or for flow matching a thousandfold of the level."""
        return 1000 * sigma if self.flow else self.timestep_of(sigma)

    def v_level(self, sigma: float) -> float:
        """The level with which a network's v at this sigma is turned into noise; 0 takes its answer for noise.

        A1111: where timesteps are fractional (UniPC), it is that of the timestep rounded down.
        """
        if self.noise_only:
            return 0.0
        return self.sigmas[int(np.float32(self.timestep_of(sigma)))] if self.by_alpha else sigma

    def sigmas_at(self, timesteps: Tensor) -> Tensor:
        """The levels of many (fractional) timesteps at once, `[n]` float32."""
        marks = torch.tensor(self.marks)
        places = ((timesteps + 1) / self.stride - 1).clamp(0, len(self.sigmas) - 1)
        low, high, weight = places.floor().long(), places.ceil().long(), places.frac()
        between = (1 - weight) * marks[low] + weight * marks[high]
        return (2 * between).expm1().sqrt() if self.by_alpha else between.exp()

    def _place_of(self, sigma: float) -> float:
        """The (fractional) entry of a level."""
        mark = _alpha_mark(sigma) if self.by_alpha else math.log(sigma)
        if mark >= self.marks[-1]:
            return len(self.marks) - 1
        if mark <= self.marks[0]:
            return 0
        low = bisect_right(self.marks, mark) - 1
        place = low + (mark - self.marks[low]) / (self.marks[low + 1] - self.marks[low])
        return math.ceil(place - 0.5) if self.quantized else place


def noise_table(
    options: SamplingOptions,
    sampler: Sampler,
    training: Training = STABLE_DIFFUSION,
    size: tuple[int, int] = (128, 128),
) -> NoiseTable:
    """The table that a sampler works with, for latents of this size. Raises BadRequest where its last level is
    infinite.
    """
    if training.flow:
        shift = training.flow.shift
        return NoiseTable.flow_matching(shift_of_area(-(-size[0] // 2) * -(-size[1] // 2)) if shift is None else shift)
    alphas = scaled_linear_alphas(training.start, training.end, training.timesteps)
    if options.downcast_alphas:
        alphas = alphas.half()
    if options.zero_terminal_snr:
        alphas = without_terminal_signal(alphas)
    aligned = ALIGNED_SDXL if training.sdxl else ALIGNED
    match sampler.table:
        case "training" if sampler.family == "sigma":
            if options.downcast_alphas and options.zero_terminal_snr:
                raise BadRequest("sd_noise_schedule", "Zero Terminal SNR", "not together with use_downcasted_alpha_bar")
            return NoiseTable.from_alphas(alphas, quantized=options.quantize, aligned=aligned)
        case "training":
            return NoiseTable.from_alphas(alphas.double())
        case "continuous":
            return NoiseTable.continuous(alphas if options.downcast_alphas else alphas.double())
        case "consistency":
            kept = alphas.float()[_LCM_STRIDE - 1 :: _LCM_STRIDE]
            return NoiseTable.from_alphas(kept, stride=_LCM_STRIDE, quantized=True, noise_only=True, aligned=aligned)


def scaled_linear_alphas(start: float, end: float, n: int) -> Tensor:
    """Cumulative products of 1 - beta, `[n]` float32, for betas linear in their square root.

    As in SD 1, SD 2 and SDXL (Rombach et al. 2022, arXiv:2112.10752).
    """
    betas = torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def without_terminal_signal(alphas: Tensor) -> Tensor:
    """Stretch the products so that the last is (nearly) 0: Lin et al. 2023, arXiv:2305.08891, Algorithm 1."""
    roots = alphas.sqrt()
    stretched = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2
    stretched[-1] = _NO_PICTURE_LEFT
    return stretched


def _alpha_mark(sigma: float) -> float:
    """The logarithm of 1 / alpha, where alpha^2 = 1 / (1 + sigma^2)."""
    return math.log1p(sigma**2) / 2


def _alpha_level(mark: float) -> float:
    return math.sqrt(math.expm1(2 * mark))
