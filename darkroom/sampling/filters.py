"""What may stand between a sampler and whoever answers it: `Steps -> Steps`. Knows latents and masks, no networks.

A mask is `[H/8, W/8]`, float32 in 0..1, and 1 where the picture is repainted.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from torch import Tensor

from darkroom.sampling.names import Family
from darkroom.sampling.steps import Eval, Steps
from darkroom.sampling.tables import NoiseTable

Mix = Callable[[Tensor, float], Tensor]
"""What a latent becomes at a noise level."""


def repaint(steps: Steps, init: Tensor, mask: Tensor, family: Family) -> Steps:
    """Repaint only under the mask, the way of the sampler's family. The result still needs a final `blend`."""
    return repaint_sigma(steps, init, mask) if family == "sigma" else repaint_timestep(steps, init, mask)


def repaint_sigma(steps: Steps, init: Tensor, mask: Tensor) -> Steps:
    """Keep the clean latent `init` outside the mask in every x0 that the sampler is told."""
    return _Between(steps, lambda question: question, lambda _, x0: blend(x0, init, mask))


def repaint_timestep(steps: Steps, init: Tensor, mask: Tensor) -> Steps:
    """As `repaint_sigma` for the timestep family.

    A1111: these blend the *unnoised* latent into the unit-variance input before the call. The noise predicted from that
    mix is then applied to the sampler's own x: it is told the x0 which that noise means there.
    """

    def mixed(question: Eval) -> Eval:
        unit_variance = (1 + question.sigma**2) ** 0.5
        return replace(question, x=blend(question.x, init * unit_variance, mask))

    def told(question: Eval, x0: Tensor) -> Tensor:
        return question.x - (mixed(question).x - x0)

    return _Between(steps, mixed, told)


def repaint_mixed(steps: Steps, mix: Mix, family: Family) -> Steps:
    """As `repaint` with any rule for what becomes of a latent at a noise level, the sampler's x at unit variance."""
    if family == "sigma":
        return _Between(steps, lambda question: question, lambda question, x0: mix(x0, question.sigma))

    def mixed(question: Eval) -> Eval:
        scale = (1 + question.sigma**2) ** 0.5
        return replace(question, x=mix(question.x / scale, question.sigma) * scale)

    return _Between(steps, mixed, lambda question, x0: question.x - (mixed(question).x - x0))


def consistency(steps: Steps, table: NoiseTable) -> Steps:
    """Make an x0 the answer of a latent consistency model: Luo et al. 2023, arXiv:2310.04378, equation 9.

    At timestep 0 such a model gives back its input; the scale of time is that of the published models.
    """
    deviation = 0.5

    def told(question: Eval, x0: Tensor) -> Tensor:
        time = 10 * table.timestep_of(question.sigma)
        total = math.hypot(time, deviation)
        return (deviation / total) ** 2 * question.x + time / total * x0

    return _Between(steps, lambda question: question, told)


def blend(painted: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """`painted` where the mask is 1, `kept` where it is 0."""
    return painted * mask + kept * (1 - mask)


class _Between(Generator[Eval, Tensor, Tensor]):
    """Steps whose questions and answers are changed on the way; `throw` and `close` reach the sampler as they are."""

    def __init__(self, steps: Steps, ask: Callable[[Eval], Eval], tell: Callable[[Eval, Tensor], Tensor]) -> None:
        self._steps, self._ask, self._tell = steps, ask, tell
        self._question: Eval | None = None

    def send(self, x0: Tensor | None, /) -> Eval:
        if self._question is None or x0 is None:
            return self._asked(next(self._steps))
        return self._asked(self._steps.send(self._tell(self._question, x0)))

    def throw(self, error: Any, /, *_: Any) -> Eval:
        return self._asked(self._steps.throw(error))

    def close(self) -> None:
        self._steps.close()

    def _asked(self, question: Eval) -> Eval:
        self._question = question
        return self._ask(question)
