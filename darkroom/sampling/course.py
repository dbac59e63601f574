"""How far a sampler has come, told from its questions. For people: no sampler reads it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.sampling.names import Sampler
from darkroom.sampling.samplers import solver_of
from darkroom.sampling.steps import Eval, Knobs

ADAPTIVE = "DPM adaptive"
"""The sampler that chooses its steps while it runs, so that nobody knows how many there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A pass of `steps` steps in which the sampler will ask `calls` questions; None if that cannot be known.

    Then the way from `high` to `low`, in logarithms of the noise level, counts instead.
    """

    steps: int
    calls: int | None
    high: float = 1.0
    low: float = 1.0

    def step(self, asked: Eval, call: int) -> int:
        """The steps that were done when a question is asked, 0 .. steps - 1; the first call has number 0."""
        if self.calls is not None:
            return min(call * self.steps // max(self.calls, 1), max(self.steps - 1, 0))
        way = math.log(self.high / self.low) if 0 < self.low < self.high else 0.0
        done = math.log(self.high / min(max(asked.sigma, self.low), self.high)) / way if way else 0.0
        return min(int(done * self.steps), max(self.steps - 1, 0))


def course_of(sampler: Sampler, sigmas: Sequence[float], knobs: Knobs, steps: int) -> Course:
    """The course of a sampler over these levels, which people know as so many steps."""
    if sampler.name == ADAPTIVE:
        return Course(steps=steps, calls=None, high=max(sigmas, default=1.0), low=min(sigmas, default=1.0))
    return Course(steps=steps, calls=count_calls(sampler, sigmas, knobs))


def count_calls(sampler: Sampler, sigmas: Sequence[float], knobs: Knobs) -> int:
    """How many questions a sampler asks, found by letting it run over a picture of one black pixel."""
    nothing = torch.zeros(1, 1, 1)
    steps = solver_of(sampler)(nothing, sigmas, _NoDraws(nothing), knobs)
    calls = 0
    try:
        asked = next(steps)
        while True:
            calls += 1
            asked = steps.send(torch.stack([nothing, nothing]) if asked.pair else nothing)
    except StopIteration:
        return calls


@dataclass(frozen=True, slots=True)
class _NoDraws:
    """Draws without randomness."""

    zero: Tensor

    def normal(self) -> Tensor:
        return self.zero

    def brownian(self, _sigma: float, _sigma_next: float) -> Tensor:
        return self.zero
