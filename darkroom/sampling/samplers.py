"""The samplers: one generator function each, in the letters of its paper. Pure maths.

Knows nothing of networks, guidance, masks or prompts: a sampler yields `Eval(x, sigma)` and is sent x0. All work on one
image with x = x0 + sigma * noise and return the latent at the last level of `sigmas`. That of the timestep family is
above 0; A1111 decodes their latent in its unit-variance form (VP), x / sqrt(1 + sigma^2), so this is what they return.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from darkroom.sampling.names import Sampler
from darkroom.sampling.schedules import karras_between
from darkroom.sampling.steps import Draws, Eval, Knobs, Steps

Solver = Callable[[Tensor, Sequence[float], Draws, Knobs], Steps]
"""From x at the first of the levels to the latent: `(x, sigmas, draws, knobs) -> Steps`."""


def ancestral_split(sigma: float, following: float, eta: float) -> tuple[float, float]:
    """Split a step's target level into (down, up): step to `down`, then add noise of level `up`.

    down^2 + up^2 = following^2; eta = 1 is DDPM's ancestral sampling (Song et al. 2021, arXiv:2010.02502, equation 16).
    """
    up = min(following, eta * following * math.sqrt(max(sigma**2 - following**2, 0.0)) / sigma)
    return math.sqrt(following**2 - up**2), up


def euler(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """Karras et al. 2022, arXiv:2206.00364, Algorithm 2, first order."""
    for sigma, following in pairwise(sigmas):
        x, sigma_hat = _churn(x, sigma, len(sigmas) - 1, draws, knobs)
        x0 = yield Eval(x, sigma_hat)
        x = x + (x - x0) / sigma_hat * (following - sigma_hat)
    return x


def heun(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """Karras et al. 2022, arXiv:2206.00364, Algorithm 2."""
    for sigma, following in pairwise(sigmas):
        x, sigma_hat = _churn(x, sigma, len(sigmas) - 1, draws, knobs)
        x = yield from _heun_step(x, sigma_hat, following)
    return x


def dpm_2(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, Algorithm 1) with the churn of Karras et al. 2022."""
    for sigma, following in pairwise(sigmas):
        x, sigma_hat = _churn(x, sigma, len(sigmas) - 1, draws, knobs)
        x = yield from _midpoint_step(x, sigma_hat, following)
    return x


def euler_ancestral(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """Euler steps to the lower level of `ancestral_split`, then fresh noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral_split(sigma, following, knobs.eta)
        x0 = yield Eval(x, sigma)
        x = x + (x - x0) / sigma * (down - sigma)
        if following > 0:
            x = x + draws.normal() * knobs.s_noise * up
    return x


def dpm_2_ancestral(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """DPM-Solver-2 steps to the lower level of `ancestral_split`, then fresh noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral_split(sigma, following, knobs.eta)
        x = yield from _midpoint_step(x, sigma, down)
        if down > 0:
            x = x + draws.normal() * knobs.s_noise * up
    return x


def dpmpp_2s_ancestral(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """DPM-Solver++(2S), Lu et al. 2022, arXiv:2211.01095, Algorithm 1, with ancestral noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral_split(sigma, following, knobs.eta)
        x0 = yield Eval(x, sigma)
        if down > 0:
            h = math.log(sigma / down)
            midway = math.sqrt(sigma * down)
            x0 = yield Eval(midway / sigma * x - math.expm1(-h / 2) * x0, midway)
        x = down / sigma * x + (1 - down / sigma) * x0
        if following > 0:
            x = x + draws.normal() * knobs.s_noise * up
    return x


def dpmpp_sde(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """DPM-Solver++ for the SDE, Lu et al. 2022, arXiv:2211.01095, section 5, single-step with r = 1/2."""
    for sigma, following in pairwise(sigmas):
        x0 = yield Eval(x, sigma)
        if following == 0:
            return x0
        midway = math.sqrt(sigma * following)
        for level in (midway, following):
            down, up = ancestral_split(sigma, level, knobs.eta)
            stepped = down / sigma * x + (1 - down / sigma) * x0
            stepped = stepped + draws.brownian(sigma, level) * knobs.s_noise * up
            if level == midway:
                x0 = yield Eval(stepped, midway)
        x = stepped
    return x


def dpmpp_2m(x: Tensor, sigmas: Sequence[float], _draws: Draws, _knobs: Knobs) -> Steps:
    """DPM-Solver++(2M), Lu et al. 2022, arXiv:2211.01095, Algorithm 2."""
    previous, h_last = None, 0.0
    for sigma, following in pairwise(sigmas):
        x0 = yield Eval(x, sigma)
        if following == 0:
            return x0
        h = math.log(sigma / following)
        blend = x0 if previous is None else x0 + (x0 - previous) * h / (2 * h_last)
        x = following / sigma * x - math.expm1(-h) * blend
        previous, h_last = x0, h
    return x


def dpmpp_2m_sde(
    x: Tensor,
    sigmas: Sequence[float],
    draws: Draws,
    knobs: Knobs,
    correction: Literal["midpoint", "heun"] = "midpoint",
) -> Steps:
    """SDE-DPM-Solver++(2M), Lu et al. 2022, arXiv:2211.01095, equation 18."""
    previous, h_last = None, 0.0
    for sigma, following in pairwise(sigmas):
        x0 = yield Eval(x, sigma)
        if following == 0:
            return x0
        h = math.log(sigma / following)
        g = h * (1 + knobs.eta)
        gain = -math.expm1(-g)
        blend = gain * x0
        if previous is not None:
            weight = gain / 2 if correction == "midpoint" else 1 - gain / g
            blend = blend + weight * h / h_last * (x0 - previous)
        x = math.exp(-g) * x + blend + _sde_noise(sigma, following, h, draws, knobs)
        previous, h_last = x0, h
    return x


def dpmpp_3m_sde(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """SDE-DPM-Solver++(3M): the exponential integrator of Lu et al. 2022, arXiv:2211.01095, with two earlier x0."""
    earlier: list[tuple[Tensor, float]] = []  # (x0, h) of the last steps, newest first
    for sigma, following in pairwise(sigmas):
        x0 = yield Eval(x, sigma)
        if following == 0:
            return x0
        h = math.log(sigma / following)
        g = h * (1 + knobs.eta)
        x = math.exp(-g) * x - math.expm1(-g) * x0 + _third_order_terms(x0, h, g, earlier)
        x = x + _sde_noise(sigma, following, h, draws, knobs)
        earlier = [(x0, h), *earlier[:1]]
    return x


def lms(x: Tensor, sigmas: Sequence[float], _draws: Draws, _knobs: Knobs) -> Steps:
    """Linear multistep of order 4: Adams-Bashforth on the uneven grid of sigmas."""
    slopes: list[Tensor] = []  # newest first
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x0 = yield Eval(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[:3]]
        grid = [sigmas[i - m] for m in range(len(slopes))]
        for j, slope in enumerate(slopes):
            x = x + _lagrange_integral(grid, j, sigma, following) * slope
    return x


def restart(x: Tensor, sigmas: Sequence[float], draws: Draws, _knobs: Knobs) -> Steps:
    """Restart sampling, Xu et al. 2023, arXiv:2306.14878: Heun steps, with jumps back from sigma 0.1 to 2."""
    arrived: float | None = None
    for sigma, following in _restart_steps(sigmas):
        if arrived is not None and sigma > arrived:
            x = x + draws.normal() * math.sqrt(sigma**2 - arrived**2)
        x = yield from _heun_step(x, sigma, following)
        arrived = following
    return x


def ddim(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """Song et al. 2021, arXiv:2010.02502, equation 12, which in x = x0 + sigma * noise is `euler_ancestral`'s step.

    Stops at the last level given (A1111: timestep 1, never 0) and draws at every step, whatever eta.
    """
    for sigma, following in pairwise(sigmas):
        down, up = ancestral_split(sigma, following, knobs.eta)
        x0 = yield Eval(x, sigma)
        x = x0 + (x - x0) / sigma * down + draws.normal() * up
    return to_vp(x, sigmas)


def plms(x: Tensor, sigmas: Sequence[float], _draws: Draws, _knobs: Knobs) -> Steps:
    """Pseudo linear multistep, Liu et al. 2022, arXiv:2202.09778, equations 11 and 12."""
    slopes: list[Tensor] = []  # newest first
    for sigma, following in pairwise(sigmas):
        x0 = yield Eval(x, sigma)
        slope = (x - x0) / sigma
        if slopes:
            blend = _adams_bashforth([slope, *slopes])
        else:
            ahead = x + slope * (following - sigma)
            x0 = yield Eval(ahead, following)
            blend = (slope + (ahead - x0) / following) / 2
        x = x + blend * (following - sigma)
        slopes = [slope, *slopes[:2]]
    return to_vp(x, sigmas)


SOLVERS: Mapping[str, Solver] = MappingProxyType(
    {
        "DPM++ 2M": dpmpp_2m,
        "DPM++ SDE": dpmpp_sde,
        "DPM++ 2M SDE": dpmpp_2m_sde,
        "DPM++ 2M SDE Heun": partial(dpmpp_2m_sde, correction="heun"),
        "DPM++ 2S a": dpmpp_2s_ancestral,
        "DPM++ 3M SDE": dpmpp_3m_sde,
        "Euler a": euler_ancestral,
        "Euler": euler,
        "LMS": lms,
        "Heun": heun,
        "DPM2": dpm_2,
        "DPM2 a": dpm_2_ancestral,
        "Restart": restart,
        "DDIM": ddim,
        "PLMS": plms,
    }
)
"""The function of every sampler of `names.SAMPLERS`."""


def solver_of(sampler: Sampler) -> Solver:
    """The function of a sampler."""
    return SOLVERS[sampler.name]


def to_vp(x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Rescale x at the last of the levels to unit variance; no levels means that it has it already."""
    return x / math.hypot(1, sigmas[-1]) if sigmas else x


def _churn(x: Tensor, sigma: float, steps: int, draws: Draws, knobs: Knobs) -> tuple[Tensor, float]:
    """Raise the noise level a little: Karras et al. 2022, Algorithm 2, lines 4 to 6. Gives the new x and level."""
    noise = draws.normal()  # A1111: drawn at every step, also where it is not used
    if knobs.s_churn <= 0 or not knobs.s_tmin <= sigma <= knobs.s_tmax:
        return x, sigma
    raised = sigma * (1 + min(knobs.s_churn / steps, math.sqrt(2) - 1))
    return x + noise * knobs.s_noise * math.sqrt(raised**2 - sigma**2), raised


def _heun_step(x: Tensor, sigma: float, following: float) -> Steps:
    """Trapezoidal step; a plain Euler step down to level 0."""
    x0 = yield Eval(x, sigma)
    slope = (x - x0) / sigma
    ahead = x + slope * (following - sigma)
    if following == 0:
        return ahead
    x0 = yield Eval(ahead, following)
    return x + (slope + (ahead - x0) / following) / 2 * (following - sigma)


def _midpoint_step(x: Tensor, sigma: float, following: float) -> Steps:
    """Step with the slope at the geometric mean of the levels; a plain Euler step down to level 0."""
    x0 = yield Eval(x, sigma)
    slope = (x - x0) / sigma
    if following > 0:
        midway = math.sqrt(sigma * following)
        ahead = x + slope * (midway - sigma)
        x0 = yield Eval(ahead, midway)
        slope = (ahead - x0) / midway
    return x + slope * (following - sigma)


def _sde_noise(sigma: float, following: float, h: float, draws: Draws, knobs: Knobs) -> Tensor | float:
    """The stochastic part of a step of length h in log sigma; nothing is drawn for eta = 0."""
    if knobs.eta == 0:
        return 0.0
    scale = following * math.sqrt(-math.expm1(-2 * h * knobs.eta)) * knobs.s_noise
    return draws.brownian(sigma, following) * scale


def _third_order_terms(x0: Tensor, h: float, g: float, earlier: Sequence[tuple[Tensor, float]]) -> Tensor | float:
    """What the earlier x0 add to an exponential Euler step of length g: first and second divided differences."""
    if not earlier:
        return 0.0
    phi_2 = math.expm1(-g) / g + 1
    x0_1, h_1 = earlier[0]
    slope = (x0 - x0_1) * h / h_1
    if len(earlier) == 1:
        return phi_2 * slope
    x0_2, h_2 = earlier[1]
    r_0, r_1 = h_1 / h, h_2 / h
    bend = (slope - (x0_1 - x0_2) / r_1) / (r_0 + r_1)
    phi_3 = phi_2 / g - 0.5
    return phi_2 * (slope + bend * r_0) - phi_3 * bend


def _lagrange_integral(grid: Sequence[float], j: int, start: float, end: float) -> float:
    """Integral from start to end of the j-th Lagrange polynomial over at most four points, by Gauss' rule (exact)."""
    centre, half = (start + end) / 2, (end - start) / 2
    nodes = (centre - half / math.sqrt(3), centre + half / math.sqrt(3))
    others = [point for m, point in enumerate(grid) if m != j]
    return half * sum(math.prod((tau - point) / (grid[j] - point) for point in others) for tau in nodes)


def _adams_bashforth(slopes: Sequence[Tensor]) -> Tensor:
    """The blend of two to four slopes, newest first, on an even grid."""
    match slopes:
        case [e, e_1]:
            return (3 * e - e_1) / 2
        case [e, e_1, e_2]:
            return (23 * e - 16 * e_1 + 5 * e_2) / 12
        case [e, e_1, e_2, e_3]:
            return (55 * e - 59 * e_1 + 37 * e_2 - 9 * e_3) / 24
    raise ValueError(f"{len(slopes)} slopes: two to four are allowed")


def _restart_steps(sigmas: Sequence[float]) -> Generator[tuple[float, float]]:
    """The (from, to) levels of Restart's steps: the plan of A1111 for 20 and for 36 steps and more."""
    n = len(sigmas) - 1
    if n < 20:
        yield from pairwise(sigmas)
        return
    length, repeats = (9, 1) if n < 36 else (n // 4, 2)
    levels = karras_between(sigmas[0], sigmas[-2], n - length * repeats)
    bottom = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.1))
    top = min(range(len(levels)), key=lambda i: abs(levels[i] - 2.0))
    for i, (sigma, following) in enumerate(pairwise(levels), start=1):
        yield sigma, following
        if i == bottom and top < bottom:
            for _ in range(repeats):
                yield from pairwise(karras_between(levels[top], levels[bottom], length + 1)[:-1])
