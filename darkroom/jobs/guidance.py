"""Guidance: turns a sampler's question into network rows and folds the rows' answers into one x0.

Knows prompts' conditionings and the guidance scale; knows nothing of sampling algorithms or of pictures.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from darkroom.jobs.conditioning import Conditioning
from darkroom.jobs.ops import Answer, Denoise, Interrupted, Row
from darkroom.jobs.spec import Model
from darkroom.sampling.schedules import NoiseTable
from darkroom.sampling.steps import Eval, Steps


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Guidance:
    """Classifier-free guidance, u + sum of s * w * (c - u) over the parts of the prompt.

    Ho and Salimans 2022, arXiv:2207.12598, equation 6, composed as Liu et al. 2022, arXiv:2206.01714, equation 11.
    `calls` is how many questions the sampler is expected to ask, `order` how many of them make one step.
    `image` is what some models see beside the latent.
    """

    model: Model
    table: NoiseTable
    prompts: Conditioning
    scale: float
    calls: int
    order: int = 1
    image: Tensor | None = None

    @property
    def pulls(self) -> list[float]:
        """How strongly each part moves the picture away from the negative prompt."""
        return [self.scale * weight for _, weight in self.prompts.parts]

    def question(self, asked: Eval, call: int) -> Denoise:
        """The rows of one evaluation. When the pulls add up to 1 the negative prompt cancels out and is not asked."""
        conds = [timed.at(call) for timed, _ in self.prompts.parts]
        if sum(self.pulls) != 1:
            conds.append(self.prompts.negative.at(call))
        timestep = self.table.timestep_of(asked.sigma)
        return Denoise(
            model=self.model,
            rows=tuple(Row(asked.x, asked.sigma, timestep, cond, self.image) for cond in conds),
            step=min(call, self.calls) // self.order,
            steps=self.calls // self.order,
        )

    def fold(self, answers: Sequence[Tensor]) -> Tensor:
        """One guided x0 out of the rows' answers."""
        pulls = self.pulls
        parts, negative = answers[: len(pulls)], answers[len(pulls) :]
        if not negative:
            return sum((pull * part for pull, part in zip(pulls[1:], parts[1:], strict=True)), pulls[0] * parts[0])
        return sum((pull * (part - negative[0]) for pull, part in zip(pulls, parts, strict=True)), negative[0])


class Sampled(NamedTuple):
    """What sampling came to: a latent, and whether it was cut short (then later passes are skipped)."""

    latent: Tensor
    interrupted: bool


def guided(steps: Steps, guidance: Guidance) -> Generator[Denoise, Answer, Sampled]:
    """Drive a sampler to its end. When interrupted, the last unguided estimate for the first part is the result."""
    call = 0
    try:
        asked = next(steps)
        last = asked.x
        while True:
            answers = yield guidance.question(asked, call)
            last = answers[0]
            asked = steps.send(guidance.fold(answers))
            call += 1
    except StopIteration as end:
        return Sampled(end.value, interrupted=False)
    except Interrupted:
        return Sampled(last, interrupted=True)
    finally:
        steps.close()
