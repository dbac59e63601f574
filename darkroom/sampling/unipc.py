"""UniPC, a predictor and corrector of any order: Zhao et al. 2023, arXiv:2302.04867. Pure maths, like `samplers`.

In the paper's letters, with x = x0 + sigma * noise: lambda = -ln sigma, and alpha is 1 throughout.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from darkroom.sampling.options import UniPcVariant
from darkroom.sampling.steps import Draws, Eval, Knobs, Steps, to_vp


class Weights(NamedTuple):
    """What the differences D_1 ... D_(p-1) weigh in predictor and corrector; the corrector has one more, for D_p."""

    predictor: Sequence[float]
    corrector: Sequence[float]


def unipc(x: Tensor, sigmas: Sequence[float], _draws: Draws, knobs: Knobs) -> Steps:
    """UniPC-p with data prediction, Zhao et al. 2023, arXiv:2302.04867, Algorithms 7 and 8.

    The order grows to `knobs.unipc_order` while there is little history. The last step is not corrected, so that every
    step makes one model call.
    """
    if len(sigmas) < 2:
        return to_vp(x, sigmas)
    points = [(sigmas[0], (yield Eval(x, sigmas[0])))]  # (sigma, x0) of the last steps, newest first
    last = len(sigmas) - 1
    for step, target in enumerate(sigmas[1:], start=1):
        sigma, m_0 = points[0]
        h = math.log(sigma / target)
        used = points[1 : _order(step, last, knobs)]
        ratios = [math.log(sigma / earlier) / h for earlier, _ in used]
        differences = [(m - m_0) / r for (_, m), r in zip(used, ratios, strict=True)]
        predictor, corrector = unipc_weights(knobs.unipc_variant, h, [*ratios, 1.0])
        base = target / sigma * x - math.expm1(-h) * m_0
        x = _less(base, predictor, differences)
        if step < last:
            m_t = yield Eval(x, target)
            x = _less(base, corrector, [*differences, m_t - m_0])
            points = [(target, m_t), *points[: knobs.unipc_order]]
    return to_vp(x, sigmas)


def unipc_weights(variant: UniPcVariant, h: float, ratios: Sequence[float]) -> Weights:
    """The weights of a step of length h in lambda, where D_k looks back by ratios[k - 1] = r_k; r_p = 1."""
    if variant == "vary_coeff":
        return _vary_coeff(h, np.array(ratios))
    return _bh(-h if variant == "bh1" else math.expm1(-h), h, np.array(ratios))


def _order(step: int, last: int, knobs: Knobs) -> int:
    if step < knobs.unipc_order:
        return step
    return min(knobs.unipc_order, last + 1 - step) if knobs.unipc_lower_order_final else knobs.unipc_order


def _less(base: Tensor, weights: Sequence[float], differences: Sequence[Tensor]) -> Tensor:
    for weight, difference in zip(weights, differences, strict=True):
        base = base - weight * difference
    return base


def _bh(b_h: float, h: float, r: NDArray[np.float64]) -> Weights:
    """B(h) times the solution of R_p(h) rho = b, equations 9 and 10; of one unknown the rounded value 1/2."""
    p = len(r)
    phis = _phis(-h, p + 1)
    b = np.array([math.factorial(i) * phis[i] for i in range(1, p + 1)]) / b_h
    powers = np.vander(r, increasing=True).T
    predictor = [0.5] if p == 2 else np.linalg.solve(powers[: p - 1, : p - 1], b[: p - 1]).tolist()
    corrector = [0.5] if p == 1 else np.linalg.solve(powers, b).tolist()
    return Weights([b_h * rho for rho in predictor], [b_h * rho for rho in corrector])


def _vary_coeff(h: float, r: NDArray[np.float64]) -> Weights:
    """The varying coefficients of appendix C: inverses of C_p, weighed with phi_2 ... phi_(p+1)."""
    p = len(r)
    phis = np.array(_phis(-h, p + 1))
    c = np.vander(r, increasing=True) / np.array([math.factorial(k) for k in range(1, p + 1)])
    inverse = np.linalg.inv(c)
    predictor = phis[1:p] @ np.linalg.inv(c[: p - 1, : p - 1])
    corrector = phis[1:p] @ inverse[: p - 1, : p - 1]
    # A1111: the last weight is taken from the row before the last.
    newest = phis[p] * inverse[max(p - 2, 0), p - 1]
    return Weights(predictor.tolist(), [*corrector.tolist(), float(newest)])


def _phis(z: float, n: int) -> list[float]:
    """phi_1 ... phi_n of equation 8: phi_1 = e^z - 1, phi_(k+1) = phi_k / z - 1 / k!."""
    phis = [math.expm1(z)]
    for k in range(1, n):
        phis.append(phis[-1] / z - 1 / math.factorial(k))
    return phis
