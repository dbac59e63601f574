"""Models whose x0 has a closed form, draws known in advance, and a driver that answers a sampler's questions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.samplers import Solver
from darkroom.sampling.schedules import NoiseTable
from darkroom.sampling.steps import Eval, Knobs, Steps

TABLE = NoiseTable.scaled_linear()
Model = Callable[[Tensor, float], Tensor]


@dataclass
class KnownDraws:
    """The k-th draw, whoever asks, has the elements sin(1.7 k + 0.9 j)."""

    count: int = 0

    def normal(self) -> Tensor:
        self.count += 1
        return torch.tensor([math.sin(1.7 * self.count + 0.9 * j) for j in range(4)])

    def brownian(self, sigma: float, sigma_next: float) -> Tensor:
        return self.normal()


@dataclass
class Run:
    """What came of a sampler: the latent and every question on the way."""

    latent: Tensor
    questions: list[Eval] = field(default_factory=list)


def drive(steps: Steps, model: Model) -> Run:
    """Answer every question with the model's x0."""
    questions: list[Eval] = []
    try:
        question = next(steps)
        while True:
            questions.append(question)
            question = steps.send(model(question.x, question.sigma))
    except StopIteration as end:
        return Run(end.value, questions)


def toy(x: Tensor, sigma: float) -> Tensor:
    """A nonlinear denoiser."""
    return (x + sigma**2 * torch.tanh(x)) / (1 + sigma**2)


def toy_eps(x: Tensor, sigma: float) -> Tensor:
    """A nonlinear noise prediction on unit-variance inputs, as an x0."""
    timestep = TABLE.timestep_of(sigma)
    return x - sigma * torch.tanh(x / math.hypot(1, sigma)) * (0.1 + 0.9 * timestep / 1000)


@dataclass(frozen=True)
class Gaussian:
    """The exact denoiser of data with this standard deviation; its probability flow is known in closed form."""

    deviation: float = 0.5

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return x * self.deviation**2 / (self.deviation**2 + sigma**2)

    def total(self, sigma: float) -> float:
        """Standard deviation of the noised data."""
        return math.hypot(self.deviation, sigma)


def sample(solver: Solver, model: Model, sigmas: list[float], noise: ImageNoise, knobs: Knobs) -> Tensor:
    """Sample from pure noise."""
    return drive(solver(noise.initial * sigmas[0], sigmas, noise, knobs), model).latent
