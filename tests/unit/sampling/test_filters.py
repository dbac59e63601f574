"""Masks between a sampler and whoever answers it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from darkroom.sampling.filters import blend, consistency, repaint, repaint_sigma, repaint_timestep
from darkroom.sampling.names import SAMPLERS, Sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.options import NO_OPTIONS
from darkroom.sampling.plan import begin_txt2img, plan_txt2img
from darkroom.sampling.samplers import SOLVERS, solver_of
from darkroom.sampling.schedules import timestep_sigmas
from darkroom.sampling.steps import Eval, Knobs, Steps
from darkroom.sampling.tables import noise_table
from tests.unit.sampling.toy import TABLE, Gaussian, KnownDraws, drive, toy, toy_eps

SHAPE = (1, 4, 4)
INIT = torch.linspace(-1, 1, 16).reshape(SHAPE)
HALF = torch.zeros(4, 4)
HALF[:2] = 1


class Stop(Exception):
    """Thrown into a sampler."""


def sampling(sampler: Sampler, steps: int = 5) -> Steps:
    plan = plan_txt2img(noise_table(NO_OPTIONS, sampler), sampler, "Automatic", steps)
    noise = ImageNoise(3, SHAPE, sigma_range=plan.sigma_range)
    return solver_of(sampler)(begin_txt2img(plan, noise.initial), plan.sigmas, noise, Knobs(eta=sampler.default_eta))


def stubborn(log: list[str]) -> Steps:
    """A sampler that answers a throw with another question and notes when it is closed."""
    try:
        try:
            yield Eval(INIT, 2.0)
        except Stop:
            log.append("thrown")
        return (yield Eval(INIT, 1.0))
    finally:
        log.append("closed")


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_a_masked_region_keeps_its_latent_exactly(sampler: Sampler) -> None:
    repainted = drive(repaint(sampling(sampler), INIT, HALF, sampler.family), Gaussian()).latent
    latent = blend(repainted, INIT, HALF)
    assert torch.equal(latent[:, 2:], INIT[:, 2:])
    assert not torch.allclose(latent[:, :2], INIT[:, :2], atol=1e-2)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_a_mask_over_everything_changes_nothing(sampler: Sampler) -> None:
    filtered = drive(repaint(sampling(sampler), INIT, torch.ones(4, 4), sampler.family), toy).latent
    assert torch.allclose(filtered, drive(sampling(sampler), toy).latent, atol=1e-5)


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1, width=32), min_size=16, max_size=16))
def test_a_soft_mask_blends_every_answer(weights: list[float]) -> None:
    mask = torch.tensor(weights).reshape(4, 4)
    steps = repaint_sigma(stubborn([]), INIT, mask)
    next(steps)
    steps.send(torch.zeros(SHAPE))
    with pytest.raises(StopIteration) as end:
        steps.send(torch.ones(SHAPE))
    assert torch.allclose(end.value.value, mask + INIT * (1 - mask))


def ddim_in_unit_variance(x: Tensor, mask: Tensor) -> Tensor:
    """DDIM without noise, written in alphas on unit-variance latents, the mask laid into the network's input."""
    sigmas = timestep_sigmas(TABLE, 10)
    alphas = [1 / (1 + sigma**2) for sigma in sigmas]
    for sigma, alpha, following in zip(sigmas, alphas, alphas[1:], strict=False):
        mixed = (x * mask + INIT * (1 - mask)) / math.sqrt(alpha)
        eps = (mixed - toy_eps(mixed, sigma)) / sigma
        x0 = (x - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha)
        x = math.sqrt(following) * x0 + math.sqrt(1 - following) * eps
    return x


def test_the_timestep_family_sees_the_unnoised_latent_outside_the_mask() -> None:
    sigmas = timestep_sigmas(TABLE, 10)
    noise = ImageNoise(3, SHAPE)
    steps = SOLVERS["DDIM"](noise.initial * math.hypot(1, sigmas[0]), sigmas, noise, Knobs(eta=0.0))
    soft = HALF * 0.75 + 0.125
    latent = drive(repaint(steps, INIT, soft, "timestep"), toy_eps).latent
    assert torch.allclose(latent, ddim_in_unit_variance(noise.initial, soft), atol=1e-4)


@pytest.mark.parametrize("wrap", [repaint_sigma, repaint_timestep])
def test_what_is_thrown_reaches_the_sampler(wrap: Callable[[Steps, Tensor, Tensor], Steps]) -> None:
    log: list[str] = []
    steps = wrap(stubborn(log), INIT, HALF)
    next(steps)
    assert steps.throw(Stop()).sigma == 1.0
    assert log == ["thrown"]
    with pytest.raises(StopIteration):
        steps.send(INIT)


def test_a_throw_that_the_sampler_does_not_catch_comes_out_again() -> None:
    steps = repaint(SOLVERS["Euler"](INIT, [2.0, 1.0, 0.0], KnownDraws(), Knobs()), INIT, HALF, "sigma")
    next(steps)
    with pytest.raises(Stop):
        steps.throw(Stop())
    with pytest.raises(StopIteration):
        next(steps)


def test_closing_reaches_the_sampler() -> None:
    log: list[str] = []
    steps = repaint(stubborn(log), INIT, HALF, "sigma")
    next(steps)
    steps.close()
    assert log == ["closed"]


def test_a_consistency_model_gives_back_its_input_where_no_noise_is_left() -> None:
    table = replace(TABLE, sigmas=(0.01, 1.0), marks=(math.log(0.01), 0.0))
    told: list[Tensor] = []

    def steps() -> Steps:
        told.append((yield Eval(INIT, 0.01)))
        told.append((yield Eval(INIT, 1.0)))
        return INIT

    drive(consistency(steps(), table), lambda x, _: torch.zeros_like(x))
    assert torch.equal(told[0], INIT)
    assert torch.allclose(told[1], INIT * (0.25 / 100.25))


def test_a_mask_keeps_a_question_for_a_pair_one() -> None:
    steps = SOLVERS["DDIM CFG++"](INIT, [2.0, 1.0], KnownDraws(), Knobs())
    assert next(repaint(steps, INIT, HALF, "timestep")).pair


def test_blend_takes_the_painted_where_the_mask_is_one() -> None:
    assert torch.equal(blend(torch.ones(SHAPE), INIT, HALF)[:, :2], torch.ones(1, 2, 4))
    assert torch.equal(blend(torch.ones(SHAPE), INIT, HALF)[:, 2:], INIT[:, 2:])
