"""The protocol of a sampler: it yields a question and is sent the answer.

A sampler never calls a network. `Steps` is one image's way from noise to latent, suspended at every question.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from darkroom.sampling.options import UniPcVariant


@dataclass(frozen=True, slots=True)
class Eval:
    """What is x0 for this x at this sigma? `x` is `[C, H/8, W/8]` float32 with x = x0 + sigma * noise.

    With `pair` the answer is `[2, C, H/8, W/8]`: the guided estimate and the negative prompt's own.
    """

    x: Tensor
    sigma: float
    pair: bool = False


Steps = Generator[Eval, Tensor, Tensor]
"""Asks for x0 (float32, the shape of x), returns the final latent."""


class Draws(Protocol):
    """Where a sampler takes its randomness from: one image's own source, whatever the batch."""

    def normal(self) -> Tensor:
        """The next standard normal tensor of the latent's shape."""

    def brownian(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit-variance increment of the image's Brownian path between two noise levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """Numbers a request may set for a sampler; each sampler reads those it has.

    `eta` scales ancestral noise; `s_churn`, `s_tmin`, `s_tmax`, `s_noise` are the stochasticity of Karras et al. 2022,
    arXiv:2206.00364, Algorithm 2. `half_table`: the noise table is one of half precision. `unipc_order` is UniPC's
    highest order, `unipc_lower_order_final` whether it falls towards the end.
    """

    eta: float = 1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = float("inf")
    s_noise: float = 1.0
    half_table: bool = False
    unipc_variant: UniPcVariant = "bh1"
    unipc_order: int = 3
    unipc_lower_order_final: bool = True


Solver = Callable[[Tensor, Sequence[float], Draws, Knobs], Steps]
"""From x at the first of the levels to the latent: `(x, sigmas, draws, knobs) -> Steps`."""


def to_vp(x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Rescale x at the last of the levels to unit variance; no levels means that it has it already."""
    return x / math.hypot(1, sigmas[-1]) if sigmas else x
