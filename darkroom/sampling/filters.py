"""What may stand between a sampler and whoever answers it: `Steps -> Steps`. Knows latents and masks, no networks.

A mask is `[H/8, W/8]`, float32 in 0..1, and 1 where the picture is repainted.
"""

from collections.abc import Callable, Generator
from typing import Any

from torch import Tensor

from darkroom.sampling.names import Family
from darkroom.sampling.steps import Eval, Steps


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
        return Eval(blend(question.x, init * unit_variance, mask), question.sigma)

    def told(question: Eval, x0: Tensor) -> Tensor:
        return question.x - (mixed(question).x - x0)

    return _Between(steps, mixed, told)


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
