"""Sequences of noise levels that samplers walk down.

Knows nothing of samplers, images or networks. A schedule is a list of Python floats, descending; all but one end in 0.
Most are computed in float32, so that they agree with recorded ones.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.sampling.names import AUTOMATIC, SCHEDULERS
from darkroom.sampling.options import NO_OPTIONS, SamplingOptions, UniPcSkipType
from darkroom.sampling.tables import NoiseTable

Schedule = Callable[[NoiseTable, int, SamplingOptions], list[float]]
"""The noise levels of n steps: n + 1 of them (the "ddim" one may have more)."""


def limits(table: NoiseTable, options: SamplingOptions) -> tuple[float, float]:
    """Lowest positive and highest level of the schedules that can be told. Raises BadRequest where they cross, or where
    there can be no such level.
    """
    ends = table.sigma_min, table.sigma_max
    low, high = (0.1, 10.0) if options.old_karras_sigmas and not table.flow else ends
    low, high = options.sigma_min or low, options.sigma_max or high
    if table.flow and high > 1:
        raise BadRequest("sigma_max", high, "at most 1: this model's pictures are all noise there")
    if low >= high:
        raise BadRequest("sigma_min", low, f"below the highest level, which is {high:g}")
    return low, high


def uniform(table: NoiseTable, n: int, _options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Evenly spaced timesteps from the last to the first: the model's own schedule."""
    return _ending_in_zero(table.sigmas_at(torch.linspace(table.last_timestep, table.first_timestep, n)))


def karras(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Karras et al. 2022, arXiv:2206.00364, equation 5, with rho = 7 if not told otherwise."""
    low, high = limits(table, options)
    return karras_between(high, low, n, options.rho or 7.0)


def karras_between(high: float, low: float, n: int, rho: float = 7.0) -> list[float]:
    """Equation 5 of Karras et al. 2022 for n levels from `high` to `low`, then 0."""
    ramp = torch.linspace(0, 1, n)
    start, end = high ** (1 / rho), low ** (1 / rho)
    return _ending_in_zero((start + ramp * (end - start)) ** rho)


def exponential(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Evenly spaced in the logarithm of sigma."""
    low, high = limits(table, options)
    return _ending_in_zero(torch.linspace(math.log(high), math.log(low), n).exp())


def polyexponential(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Polynomial of degree rho in the logarithm of sigma; with rho = 1, its default, the same as `exponential`."""
    low, high = map(math.log, limits(table, options))
    ramp = torch.linspace(1, 0, n) ** (options.rho or 1.0)
    return _ending_in_zero(torch.exp(ramp * (high - low) + low))


def sgm_uniform(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Evenly spaced timesteps that stop one step above the lowest (Stability AI's generative-models)."""
    low, high = map(table.timestep_of, limits(table, options))
    return _ending_in_zero(table.sigmas_at(torch.linspace(high, low, n + 1)[:-1]))


def kl_optimal(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Sabour et al. 2024, arXiv:2404.14507, theorem 3.1. A1111: ends at the lowest level, not at 0."""
    low, high = map(math.atan, limits(table, options))
    ramp = torch.arange(n + 1) / n
    return torch.tan(ramp * low + (1 - ramp) * high).tolist()


def align_your_steps(table: NoiseTable, n: int, _options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Sabour et al. 2024, arXiv:2404.14507: steps tuned for a model; other counts interpolate the logarithms.

    A1111: a single step is the last of them.
    """
    logs = torch.tensor(table.aligned, dtype=torch.float64).log()
    positions = torch.linspace(len(logs) - 1, 0, n, dtype=torch.float64).flip(0)
    low, high = positions.floor().long(), positions.ceil().long()
    return _ending_in_zero(torch.lerp(logs[low], logs[high], positions.frac()).exp())


def simple(table: NoiseTable, n: int, _options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Every (1000 / n)-th level of the table, from the top."""
    stride = len(table.sigmas) / n
    return [table.sigmas[-(1 + int(k * stride))] for k in range(n)] + [0.0]


def normal(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Evenly spaced timesteps between those of the highest and the lowest level."""
    low, high = map(table.timestep_of, limits(table, options))
    return _ending_in_zero(table.sigmas_at(torch.linspace(high, low, n)))


def ddim(table: NoiseTable, n: int, _options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Every (1000 // n)-th level counted from the table's second. A1111: the count may differ from n."""
    stride = max(len(table.sigmas) // n, 1)
    return [*reversed(table.sigmas[1::stride]), 0.0]


def beta(table: NoiseTable, n: int, options: SamplingOptions = NO_OPTIONS) -> list[float]:
    """Lee et al. 2024, arXiv:2407.12173: quantiles of a beta distribution, here spread over sigma itself."""
    low, high = limits(table, options)
    shares = torch.linspace(1, 0, n, dtype=torch.float64)
    return _ending_in_zero(low + _beta_quantiles(shares, options.beta_alpha, options.beta_beta) * (high - low))


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


def unipc_sigmas(table: NoiseTable, n: int, first: float, skip: UniPcSkipType = "time_uniform") -> list[float]:
    """The levels of n steps of UniPC, from timestep `first` to 0, both included.

    Times are A1111's, (timestep + 1) / length in float32, because the network is told what comes back from them.
    """
    length = len(table.sigmas)
    start, end = float(torch.tensor(first) / length + 1 / length), 1 / length
    match skip:
        case "time_uniform":
            times = torch.linspace(start, end, n + 1)
        case "time_quadratic":
            times = torch.linspace(start**0.5, end**0.5, n + 1) ** 2
        case "logSNR":
            return torch.linspace(math.log(table.sigma_of(first)), math.log(table.sigma_min), n + 1).exp().tolist()
    return [table.sigma_of(t) for t in ((times - end) * length).tolist()]


def spread(high: float, low: float, n: int) -> list[float]:
    """The levels of n steps that are even in the logarithm of sigma, with exact ends."""
    logs = torch.linspace(math.log(high), math.log(low), n + 1, dtype=torch.float64)
    return [high, *logs[1:-1].exp().tolist(), low]


def _ending_in_zero(sigmas: Tensor) -> list[float]:
    return [*sigmas.tolist(), 0.0]


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
