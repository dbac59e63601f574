"""Models whose x0 has a closed form, draws known in advance, and a driver that answers a sampler's questions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from darkroom.sampling.names import get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.options import NO_OPTIONS
from darkroom.sampling.steps import Eval, Knobs, Solver, Steps
from darkroom.sampling.tables import NoiseTable, noise_table

TABLE = NoiseTable.scaled_linear()
CURVE = noise_table(NO_OPTIONS, get_sampler("UniPC"))
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


def drive(steps: Steps, model: Model, unguided: Model | None = None) -> Run:
    """Answer every question with the model's x0, and questions for a pair with the other model's as well."""
    questions: list[Eval] = []
    try:
        question = next(steps)
        while True:
            questions.append(question)
            answer = model(question.x, question.sigma)
            if question.pair:
                answer = torch.stack([answer, (unguided or model)(question.x, question.sigma)])
            question = steps.send(answer)
    except StopIteration as end:
        return Run(end.value, questions)


def toy(x: Tensor, sigma: float) -> Tensor:
    """A nonlinear denoiser."""
    return (x + sigma**2 * torch.tanh(x)) / (1 + sigma**2)


def toy_eps(x: Tensor, sigma: float) -> Tensor:
    """A nonlinear noise prediction on unit-variance inputs, as an x0."""
    timestep = CURVE.timestep_of(sigma)
    return x - sigma * torch.tanh(x / math.hypot(1, sigma)) * (0.1 + 0.9 * timestep / 1000)


def unguided_eps(x: Tensor, sigma: float) -> Tensor:
    """What `toy_eps` is without guidance."""
    timestep = CURVE.timestep_of(sigma)
    return x - sigma * torch.sin(x / math.hypot(1, sigma)) * (0.2 + 0.8 * timestep / 1000)


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
