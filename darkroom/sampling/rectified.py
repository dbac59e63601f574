"""Flow matching: models that were trained on x = (1 - sigma) * x0 + sigma * noise, with sigma in 0..1.

Lipman et al. 2022, arXiv:2210.02747; in this straight form Liu et al. 2022, arXiv:2209.03003. Knows how noise levels
are spaced there, and how solvers that were made for x = x0 + sigma * noise come to work with it; knows no networks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from darkroom.sampling.steps import Draws, Eval, Knobs, Solver, Steps

HIGHEST = 0.9999
"""Where there is nothing but noise, the other form's level would be infinite; this is taken for it."""


def shifted(time: float, shift: float) -> float:
    """The noise level of a time in 0..1: Esser et al. 2024, arXiv:2403.03206, equation 23."""
    return shift / (shift + (1 / time - 1)) if time > 0 else 0.0


def shift_of_area(tokens: int) -> float:
    """FLUX.1's shift for a picture of so many tokens, which are 16 x 16 pixels each.

    Its logarithm is a straight line from 0.5 at 256 tokens to 1.15 at 4096 (Black Forest Labs' flux, `sampling.py`).
    """
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


def to_ratio(sigma: float) -> float:
    """The level of the form x0 + ratio * noise at which there is as much noise beside the picture."""
    sigma = min(sigma, HIGHEST)
    return sigma / (1 - sigma)


def from_ratio(ratio: float) -> float:
    """Undoes `to_ratio`."""
    return ratio / (1 + ratio)


def rectified(solver: Solver) -> Solver:
    """A solver for x = x0 + ratio * noise as one for the straight form: x / (1 - sigma) is what it works on.

    Solvers that add noise need this: in the straight form fresh noise would have to displace some of the picture. Those
    that only follow dx / d(sigma) = (x - x0) / sigma do not, for that holds in both forms.
    """

    def steps(x: Tensor, sigmas: Sequence[float], draws: Draws, knobs: Knobs) -> Steps:
        ratios = [to_ratio(sigma) for sigma in sigmas]
        inner = solver(x * (1 + ratios[0]), ratios, _Translated(draws), knobs)
        try:
            asked = next(inner)
            while True:
                level = from_ratio(asked.sigma)
                asked = inner.send((yield Eval(asked.x * (1 - level), level, asked.pair)))
        except StopIteration as end:
            latent: Tensor = end.value / (1 + ratios[-1])
            return latent
        finally:
            inner.close()

    return steps


@dataclass(frozen=True, slots=True)
class _Translated:
    """Draws whose Brownian path is that of the straight form's levels."""

    draws: Draws

    def normal(self) -> Tensor:
        return self.draws.normal()

    def brownian(self, ratio: float, following: float) -> Tensor:
        return self.draws.brownian(from_ratio(ratio), from_ratio(following))
