"""Noise levels: the table a model was trained on, and the sequences of levels that samplers walk down.

Knows nothing of samplers, images or networks. A schedule is a list of Python floats, descending; all but one end in 0.
Levels are computed in float32 like the tables that checkpoints were trained on, so that they agree with recorded ones.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

from darkroom.sampling.names import AUTOMATIC, SCHEDULERS


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTable:
    """The noise level of every training timestep, ascending: `sigmas[t]` with x = x0 + sigma * noise."""

    sigmas: tuple[float, ...]

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, n: int = 1000) -> Self:
        """Betas linear in their square root, as in SD 1, SD 2 and SDXL (Rombach et al. 2022, arXiv:2112.10752)."""
        betas = torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2
        return cls.from_alphas(torch.cumprod(1 - betas, dim=0).float())

    @classmethod
    def from_alphas(cls, alphas: Tensor) -> Self:
        """From the cumulative products of 1 - beta, `[timesteps]`."""
        return cls(tuple(((1 - alphas) / alphas).sqrt().tolist()))

    @property
    def sigma_min(self) -> float:
        """The lowest level, of timestep 0."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        """The highest level, of the last timestep."""
        return self.sigmas[-1]

    def sigma_of(self, t: float) -> float:
        """The level of a timestep in 0..len-1; fractional ones by interpolating the logarithms."""
        low, high = math.floor(t), math.ceil(t)
        if low == high:
            return self.sigmas[low]
        return math.exp(_lerp(math.log(self.sigmas[low]), math.log(self.sigmas[high]), t - low))

    def timestep_of(self, sigma: float) -> float:
        """The (fractional) timestep of a level, clamped to the table; exact where the level is one of the table's."""
        if sigma >= self.sigma_max:
            return float(len(self.sigmas) - 1)
        if sigma <= self.sigma_min:
            return 0.0
        low = bisect_right(self.sigmas, sigma) - 1
        here, above = math.log(self.sigmas[low]), math.log(self.sigmas[low + 1])
        return low + (math.log(sigma) - here) / (above - here)

    def sigmas_at(self, timesteps: Tensor) -> Tensor:
        """The levels of many (fractional) timesteps at once, `[n]` float32."""
        logs = torch.tensor(self.sigmas).log()
        low, high, weight = timesteps.floor().long(), timesteps.ceil().long(), timesteps.frac()
        return ((1 - weight) * logs[low] + weight * logs[high]).exp()


Schedule = Callable[[NoiseTable, int], list[float]]
"""The noise levels of n steps: n + 1 of them (the "ddim" one may have more)."""


def uniform(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced timesteps from the last to 0: the model's own schedule."""
    return _ending_in_zero(table.sigmas_at(torch.linspace(len(table.sigmas) - 1, 0, n)))


def karras(table: NoiseTable, n: int) -> list[float]:
    """Karras et al. 2022, arXiv:2206.00364, equation 5, with rho = 7."""
    return karras_between(table.sigma_max, table.sigma_min, n)


def karras_between(high: float, low: float, n: int, rho: float = 7.0) -> list[float]:
    """Equation 5 of Karras et al. 2022 for n levels from `high` to `low`, then 0."""
    ramp = torch.linspace(0, 1, n)
    start, end = high ** (1 / rho), low ** (1 / rho)
    return _ending_in_zero((start + ramp * (end - start)) ** rho)


def exponential(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced in the logarithm of sigma."""
    return _ending_in_zero(torch.linspace(math.log(table.sigma_max), math.log(table.sigma_min), n).exp())


def polyexponential(table: NoiseTable, n: int) -> list[float]:
    """Polynomial of degree rho in the logarithm of sigma; with rho = 1, as here, the same as `exponential`."""
    ramp = torch.linspace(1, 0, n)
    low, high = math.log(table.sigma_min), math.log(table.sigma_max)
    return _ending_in_zero(torch.exp(ramp * (high - low) + low))


def sgm_uniform(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced timesteps that stop one step above 0 (Stability AI's generative-models)."""
    return _ending_in_zero(table.sigmas_at(torch.linspace(len(table.sigmas) - 1, 0, n + 1)[:-1]))


def kl_optimal(table: NoiseTable, n: int) -> list[float]:
    """Sabour et al. 2024, arXiv:2404.14507, theorem 3.1. A1111: ends at sigma_min, not at 0."""
    ramp = torch.arange(n + 1) / n
    return torch.tan(ramp * math.atan(table.sigma_min) + (1 - ramp) * math.atan(table.sigma_max)).tolist()


_ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)


def align_your_steps(_table: NoiseTable, n: int) -> list[float]:
    """Sabour et al. 2024, arXiv:2404.14507: ten steps tuned for SD 1; other counts interpolate the logarithms."""
    logs = torch.tensor(_ALIGNED, dtype=torch.float64).log()
    positions = torch.linspace(0, len(_ALIGNED) - 1, n, dtype=torch.float64)
    low, high = positions.floor().long(), positions.ceil().long()
    return _ending_in_zero(torch.lerp(logs[low], logs[high], positions.frac()).exp())


def simple(table: NoiseTable, n: int) -> list[float]:
    """Every (1000 / n)-th level of the table, from the top."""
    stride = len(table.sigmas) / n
    return [table.sigmas[-(1 + int(k * stride))] for k in range(n)] + [0.0]


def normal(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced timesteps between those of the highest and the lowest level."""
    high, low = table.timestep_of(table.sigma_max), table.timestep_of(table.sigma_min)
    return _ending_in_zero(table.sigmas_at(torch.linspace(high, low, n)))


def ddim(table: NoiseTable, n: int) -> list[float]:
    """Every (1000 // n)-th level counted from timestep 1. A1111: the count may differ from n."""
    stride = max(len(table.sigmas) // n, 1)
    return [*reversed(table.sigmas[1::stride]), 0.0]


def beta(table: NoiseTable, n: int) -> list[float]:
    """Lee et al. 2024, arXiv:2407.12173: quantiles of Beta(0.6, 0.6), here spread over sigma itself."""
    quantiles = _beta_quantiles(torch.linspace(1, 0, n, dtype=torch.float64), 0.6, 0.6)
    return _ending_in_zero(table.sigma_min + quantiles * (table.sigma_max - table.sigma_min))


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "automatic": uniform,
        "uniform": uniform,
        "karras": karras,
        "exponential": exponential,
        "polyexponential": polyexponential,
        "sgm_uniform": sgm_uniform,
        "kl_optimal": kl_optimal,
        "align_your_steps": align_your_steps,
        "simple": simple,
        "normal": normal,
        "ddim": ddim,
        "beta": beta,
    }
)
"""The function of every scheduler, by its internal name."""


def schedule_of(label: str) -> Schedule:
    """The function of the scheduler with this label; "Automatic" is the model's own schedule."""
    names = {scheduler.label: scheduler.name for scheduler in SCHEDULERS}
    return SCHEDULES[names.get(label, AUTOMATIC.lower())]


def training_timesteps(n: int, length: int = 1000) -> list[int]:
    """Ascending timesteps of DDIM-type samplers: every (1000 // n)-th, plus 1. A1111: there may be more than n."""
    stride = max(length // n, 1)
    return [min(t + 1, length - 1) for t in range(0, length, stride)]


def timestep_sigmas(table: NoiseTable, n: int) -> list[float]:
    """The levels of `training_timesteps`, descending, without a final 0."""
    return [table.sigmas[t] for t in reversed(training_timesteps(n, len(table.sigmas)))]


def _ending_in_zero(sigmas: Tensor) -> list[float]:
    return [*sigmas.tolist(), 0.0]


def _lerp(start: float, end: float, weight: float) -> float:
    return start + weight * (end - start)


def _beta_quantiles(shares: Tensor, a: float, b: float) -> Tensor:
    """Where the distribution function of Beta(a, b) reaches each share, by bisection."""
    low, high = torch.zeros_like(shares), torch.ones_like(shares)
    for _ in range(50):
        middle = (low + high) / 2
        below = _beta_share(middle, a, b) < shares
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _beta_share(x: Tensor, a: float, b: float) -> Tensor:
    """The distribution function of Beta(a, b), on the side where its continued fraction converges fast."""
    return torch.where(x < (a + 1) / (a + b + 2), _lower_beta(x, a, b), 1 - _lower_beta(1 - x, b, a))


def _lower_beta(x: Tensor, a: float, b: float) -> Tensor:
    """The regularised incomplete beta function as a continued fraction (NIST DLMF, 8.17.22)."""
    fraction = torch.ones_like(x)
    for i in range(40, 0, -1):
        m = i // 2
        step = m * (b - m) if i % 2 == 0 else -(a + m) * (a + b + m)
        fraction = 1 + step * x / ((a + i - 1) * (a + i)) / fraction
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    return scale * x**a * (1 - x) ** b / fraction
