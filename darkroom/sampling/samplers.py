"""The samplers: one generator function each, in the letters of its paper. Pure maths.

Knows nothing of networks, guidance, masks or prompts: a sampler yields `Eval(x, sigma)` and is sent x0. All work on one
image with x = x0 + sigma * noise and return the latent at the last level of `sigmas`. That of the timestep family is
above 0; A1111 decodes their latent in its unit-variance form (VP), x / sqrt(1 + sigma^2), so this is what they return.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np
from torch import Tensor

from darkroom.sampling.names import Sampler
from darkroom.sampling.plan import Plan
from darkroom.sampling.rectified import rectified
from darkroom.sampling.schedules import karras_between, spread
from darkroom.sampling.steps import Draws, Eval, Knobs, Solver, Steps, to_vp
from darkroom.sampling.unipc import unipc


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
    for sigma, following in pairwise(_distinct(sigmas)):
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
    for sigma, following in pairwise(_distinct(sigmas)):
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
    for sigma, following in pairwise(_distinct(sigmas)):
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
    for sigma, following in pairwise(_distinct(sigmas)):
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
    sigmas = _distinct(sigmas)
    slopes: list[Tensor] = []  # newest first
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x0 = yield Eval(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[:3]]
        grid = [sigmas[i - m] for m in range(len(slopes))]
        for j, slope in enumerate(slopes):
            x = x + _lagrange_integral(grid, j, sigma, following) * slope
    return x


def dpm_fast(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """DPM-Solver-fast, Lu et al. 2022, arXiv:2206.00927, section 3.4, with ancestral noise.

    Walks from the first of the n + 1 levels to the last in its own way, with n model calls.
    """
    orders = _fast_orders(len(sigmas) - 1)
    for order, (sigma, following) in zip(orders, pairwise(spread(sigmas[0], sigmas[-1], len(orders))), strict=True):
        down, up = _split_above(sigmas[-1], sigma, following, knobs.eta)
        x = yield from _DPM_SOLVER[order](x, sigma, down)
        x = x + draws.normal() * knobs.s_noise * up
    return x


def dpm_adaptive(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """DPM-Solver-23 with adaptive steps, Lu et al. 2022, arXiv:2206.00927, appendix C, with ancestral noise.

    Chooses its own way from the first to the last of the levels, by an error that is kept near its tolerance.
    """
    high, low = sigmas[0], sigmas[-1]
    relative, absolute = 0.05, 0.0078
    h, shortest = 0.05, math.log(high / low) / 1000
    sigma, previous = high, x
    while math.log(sigma / low) > 1e-5:
        following = max(low, sigma * math.exp(-h))
        down, up = _split_above(low, sigma, following, knobs.eta)
        second, third = yield from _embedded_step(x, sigma, down)
        tolerance = (relative * second.abs().maximum(previous.abs())).clamp(min=absolute)
        error = float(((second - third) / tolerance).square().mean().sqrt())
        if math.isnan(error):
            return third
        # Growth by error^(-1 / order), softly limited: Soederlind 2003, doi:10.1145/641876.641877.
        growth = 1 + math.atan((1 / (error + 1e-8)) ** (1 / (1.5 if knobs.eta else 3)) - 1)
        # A network that no step suits must not hold the engine for ever.
        if growth >= 0.81 or h <= shortest:
            x = third + draws.normal() * knobs.s_noise * up
            sigma, previous = following, second
        h = max(h * growth, shortest)
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
        slope = (x - x0) / sigma
        x = x0 + slope * (down + _half_gap(sigma, knobs)) + draws.normal() * up
    return to_vp(x, sigmas)


def ddim_cfg_plus_plus(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
    """CFG++, Chung et al. 2024, arXiv:2406.08070, Algorithm 2: `ddim` that renoises with the unguided noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral_split(sigma, following, knobs.eta)
        guided, unguided = yield Eval(x, sigma, pair=True)
        x = guided + (x - guided) / sigma * _half_gap(sigma, knobs) + (x - unguided) / sigma * down
        x = x + draws.normal() * up
    return to_vp(x, sigmas)


def plms(x: Tensor, sigmas: Sequence[float], _draws: Draws, knobs: Knobs) -> Steps:
    """Pseudo linear multistep, Liu et al. 2022, arXiv:2202.09778, equations 11 and 12."""
    slopes: list[Tensor] = []  # newest first
    for sigma, following in pairwise(sigmas):
        x0 = yield Eval(x, sigma)
        slope = (x - x0) / sigma
        way = following - sigma + _half_gap(sigma, knobs)
        if slopes:
            blend = _adams_bashforth([slope, *slopes])
        else:
            ahead = x + slope * way
            x0 = yield Eval(ahead, following)
            blend = (slope + (ahead - x0) / following) / 2
        x = x + blend * way
        slopes = [slope, *slopes[:2]]
    return to_vp(x, sigmas)


def lcm(x: Tensor, sigmas: Sequence[float], draws: Draws, _knobs: Knobs) -> Steps:
    """Multistep consistency sampling, Luo et al. 2023, arXiv:2310.04378, Algorithm 3."""
    for sigma, following in pairwise(sigmas):
        x = yield Eval(x, sigma)
        if following > 0:
            x = x + draws.normal() * following
    return x


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
        "DPM fast": dpm_fast,
        "DPM adaptive": dpm_adaptive,
        "Restart": restart,
        "DDIM": ddim,
        "DDIM CFG++": ddim_cfg_plus_plus,
        "PLMS": plms,
        "UniPC": unipc,
        "LCM": lcm,
    }
)
"""The function of every sampler of `names.SAMPLERS`."""


def solver_of(sampler: Sampler) -> Solver:
    """The function of a sampler."""
    return SOLVERS[sampler.name]


def walk(sampler: Sampler, plan: Plan, x: Tensor, draws: Draws, knobs: Knobs) -> Steps:
    """A sampler's way down the levels of a plan, from x at the first of them."""
    solver = solver_of(sampler)
    if plan.flow and (sampler.flow == "rectified" or knobs.s_churn > 0):
        solver = rectified(solver)
    return solver(x, plan.sigmas, draws, knobs)


def _distinct(sigmas: Sequence[float]) -> list[float]:
    """The levels without repetitions, between which some solvers would divide by zero."""
    return [*sigmas[:1], *(following for sigma, following in pairwise(sigmas) if following != sigma)]


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


def _half_gap(sigma: float, knobs: Knobs) -> float:
    """By how much a timestep sampler underrates its level when it looks for x0.

    A1111: there it takes sqrt(1 - alpha) from the half precision table, and from nowhere else.
    """
    if not knobs.half_table:
        return 0.0
    scale = math.hypot(1, sigma)
    rounded = np.sqrt(np.float16(1) - np.float16(1 / scale**2))
    return sigma - float(rounded) * scale


def _split_above(low: float, sigma: float, following: float, eta: float) -> tuple[float, float]:
    """The ancestral split of a step, its lower level at least `low`."""
    down = max(low, ancestral_split(sigma, following, eta)[0])
    return down, math.sqrt(max(following**2 - down**2, 0.0))


def _fast_orders(calls: int) -> list[int]:
    """The orders of DPM-Solver-fast's steps, whose sum is the number of model calls."""
    thirds, rest = divmod(calls, 3)
    return [3] * thirds + [rest] if rest else [3] * (thirds - 1) + [2, 1]


def _first_order_step(x: Tensor, sigma: float, down: float) -> Steps:
    """DPM-Solver-1: an Euler step in sigma."""
    x0 = yield Eval(x, sigma)
    return x + (x - x0) / sigma * (down - sigma)


def _second_order_step(x: Tensor, sigma: float, down: float) -> Steps:
    """DPM-Solver-2 with r1 = 1/2, Lu et al. 2022, arXiv:2206.00927, Algorithm 4."""
    midway = math.sqrt(sigma * down)
    eps = (x - (yield Eval(x, sigma))) / sigma
    u = x + (midway - sigma) * eps
    eps_1 = (u - (yield Eval(u, midway))) / midway
    return x + (down - sigma) * eps_1


def _third_order_step(x: Tensor, sigma: float, down: float) -> Steps:
    """DPM-Solver-3."""
    _, third = yield from _embedded_step(x, sigma, down)
    return third


def _embedded_step(x: Tensor, sigma: float, down: float) -> Generator[Eval, Tensor, tuple[Tensor, Tensor]]:
    """DPM-Solver-2 and -3 from the same evaluations, r1 = 1/3 and r2 = 2/3.

    Lu et al. 2022, arXiv:2206.00927, Algorithms 4 and 5.
    """
    h = math.log(sigma / down)
    s_1, s_2 = sigma * math.exp(-h / 3), sigma * math.exp(-2 * h / 3)
    eps = (x - (yield Eval(x, sigma))) / sigma
    u_1 = x + (s_1 - sigma) * eps
    eps_1 = (u_1 - (yield Eval(u_1, s_1))) / s_1
    u_2 = x + (s_2 - sigma) * eps - 2 * s_2 * _bend(2 * h / 3) * (eps_1 - eps)
    eps_2 = (u_2 - (yield Eval(u_2, s_2))) / s_2
    straight = x + (down - sigma) * eps
    second = straight + 1.5 * (down - sigma) * (eps_1 - eps)
    third = straight - 1.5 * down * _bend(h) * (eps_2 - eps)
    return second, third


_DPM_SOLVER = MappingProxyType({1: _first_order_step, 2: _second_order_step, 3: _third_order_step})


def _bend(h: float) -> float:
    """(e^h - 1) / h - 1."""
    return math.expm1(h) / h - 1 if h else 0.0


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
