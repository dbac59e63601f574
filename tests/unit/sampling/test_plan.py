"""From steps and strength to noise levels and a starting point."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import BadRequest
from darkroom.sampling.names import SAMPLERS, SCHEDULERS, Sampler, get_sampler
from darkroom.sampling.options import NO_OPTIONS, SamplingOptions
from darkroom.sampling.plan import begin_img2img, begin_txt2img, img2img_steps, plan_img2img, plan_txt2img
from darkroom.sampling.schedules import exponential, karras, timestep_sigmas, uniform
from darkroom.sampling.tables import noise_table
from tests.unit.sampling.toy import CURVE, TABLE

EULER, DDIM = get_sampler("Euler"), get_sampler("DDIM")
NOISE, INIT = torch.randn(4, 8, 8), torch.randn(4, 8, 8)


@pytest.mark.parametrize(
    ("steps", "strength", "fix_steps", "length", "run"),
    [
        (20, 0.75, False, 20, 16),
        (20, 1.0, False, 20, 20),
        (20, 0.0, False, 20, 1),
        (20, 0.75, True, 26, 20),
        (20, 0.7, True, 28, 20),
        (20, 0.5, True, 40, 20),
    ],
)
def test_strength_says_how_much_of_the_schedule_is_walked(
    steps: int, strength: float, fix_steps: bool, length: int, run: int
) -> None:
    total, kept = img2img_steps(steps, strength, fix_steps)
    assert (total, kept + 1) == (length, run)
    plan = plan_img2img(TABLE, EULER, "Automatic", steps, strength, fix_steps)
    assert plan.steps == run
    assert plan.full == tuple(uniform(TABLE, length))
    assert plan.sigmas == plan.full[-len(plan.sigmas) :]


def test_automatic_means_the_samplers_own_schedule() -> None:
    assert plan_txt2img(TABLE, get_sampler("DPM++ 2M"), "Automatic", 10).full == tuple(karras(TABLE, 10))
    assert plan_txt2img(TABLE, EULER, "Automatic", 10).full == tuple(uniform(TABLE, 10))
    assert plan_txt2img(TABLE, EULER, "Karras", 10).full == tuple(karras(TABLE, 10))


def test_some_samplers_leave_out_the_last_but_one_level() -> None:
    eleven = exponential(TABLE, 11)
    assert plan_txt2img(TABLE, get_sampler("DPM++ 3M SDE"), "Automatic", 10).full == (*eleven[:-2], 0.0)


def test_the_timestep_family_ignores_the_scheduler() -> None:
    assert plan_txt2img(TABLE, DDIM, "Karras", 10).full == tuple(timestep_sigmas(TABLE, 10))


def test_noise_alone_starts_at_the_first_level() -> None:
    plan = plan_txt2img(TABLE, EULER, "Automatic", 10)
    assert torch.equal(begin_txt2img(plan, NOISE), NOISE * plan.sigmas[0])


def test_noise_alone_has_unit_variance_for_the_timestep_family() -> None:
    plan = plan_txt2img(TABLE, DDIM, "Automatic", 10)
    assert torch.allclose(begin_txt2img(plan, NOISE) / math.hypot(1, plan.sigmas[0]), NOISE)


def test_a_picture_is_noised_to_the_first_level_of_the_cut() -> None:
    plan = plan_img2img(TABLE, EULER, "Automatic", 20, 0.5)
    assert torch.allclose(begin_img2img(plan, INIT, NOISE), INIT + NOISE * plan.sigmas[0])
    assert torch.allclose(begin_img2img(plan, INIT, NOISE, 0.1), INIT + NOISE * (plan.sigmas[0] + 0.1))


def test_ddim_noises_a_picture_one_level_higher_than_it_starts() -> None:
    plan = plan_img2img(TABLE, DDIM, "Automatic", 20, 0.5)
    timesteps = [TABLE.timestep_of(sigma) for sigma in plan.sigmas]
    assert timesteps == [451, 401, 351, 301, 251, 201, 151, 101, 51, 1]
    assert TABLE.timestep_of(plan.noise_sigma) == 501
    alpha = 1 / (1 + plan.noise_sigma**2)
    expected = INIT * math.sqrt(alpha) + NOISE * math.sqrt(1 - alpha) + NOISE * 0.1 * math.sqrt(alpha)
    start = begin_img2img(plan, INIT, NOISE, 0.1)
    assert torch.allclose(start / math.hypot(1, plan.sigmas[0]), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["DDIM", "DDIM CFG++", "PLMS", "UniPC"])
def test_the_timestep_family_has_nothing_to_do_at_no_strength(name: str) -> None:
    plan = plan_img2img(TABLE, get_sampler(name), "Automatic", 20, 0.0)
    assert (plan.sigmas, plan.steps) == ((), 0)
    assert torch.isfinite(begin_img2img(plan, INIT, NOISE)).all()


@settings(deadline=None)
@given(
    st.sampled_from(SAMPLERS),
    st.sampled_from([scheduler.label for scheduler in SCHEDULERS]),
    st.integers(1, 1100),
    st.floats(0.01, 1),
    st.booleans(),
)
def test_every_request_has_a_plan(sampler: Sampler, scheduler: str, steps: int, strength: float, fix: bool) -> None:
    table = noise_table(NO_OPTIONS, sampler)
    plan = plan_img2img(table, sampler, scheduler, steps, strength, fix, SamplingOptions(unipc_order=1))
    if sampler.chooses_levels or sampler.name == "UniPC":
        assert list(plan.sigmas) == sorted(plan.sigmas, reverse=True)
        assert min(plan.sigmas, default=1.0) > 0
    else:
        assert plan.sigmas == plan.full[len(plan.full) - len(plan.sigmas) :]
    assert plan.noise_sigma in plan.full
    assert plan.steps <= steps or sampler.family == "timestep" or scheduler == "DDIM"
    low, high = plan.sigma_range
    assert 0 < low <= high


@settings(deadline=None)
@given(st.sampled_from(SAMPLERS), st.integers(3, 150))
def test_a_txt2img_plan_has_the_asked_steps(sampler: Sampler, steps: int) -> None:
    plan = plan_txt2img(noise_table(NO_OPTIONS, sampler), sampler, "Automatic", steps)
    assert plan.steps == steps or sampler.family == "timestep"
    assert plan.noise_sigma == plan.full[0] == pytest.approx(plan.sigmas[0]) or sampler.name == "UniPC"


def test_unipc_refuses_an_order_above_its_steps() -> None:
    with pytest.raises(BadRequest, match="uni_pc_order: 3"):
        plan_txt2img(CURVE, get_sampler("UniPC"), "Automatic", 2)
    with pytest.raises(BadRequest, match="at most the 2 steps"):
        plan_img2img(CURVE, get_sampler("UniPC"), "Automatic", 10, 0.2)
    assert plan_txt2img(CURVE, get_sampler("UniPC"), "Automatic", 3).steps == 4


def test_samplers_that_choose_their_levels_walk_the_whole_table_whatever_the_schedule() -> None:
    plan = plan_txt2img(TABLE, get_sampler("DPM fast"), "Karras", 10, SamplingOptions(sigma_min=0.5, sigma_max=8.0))
    assert (plan.sigmas[0], plan.sigmas[-1], plan.steps) == (TABLE.sigma_max, TABLE.sigma_min, 10)
    assert plan.noise_sigma == pytest.approx(8.0)


def test_samplers_that_choose_their_levels_start_from_a_picture_between_the_ends_of_the_cut() -> None:
    plan = plan_img2img(TABLE, get_sampler("DPM adaptive"), "Automatic", 20, 0.5)
    cut = plan_img2img(TABLE, EULER, "Automatic", 20, 0.5).sigmas
    assert (plan.sigmas[0], plan.sigmas[-1], plan.steps) == (cut[0], cut[-2], len(cut) - 1)


def test_any_sampler_can_leave_out_the_last_but_one_level() -> None:
    leave_out = SamplingOptions(discard_penultimate=True)
    eleven = uniform(TABLE, 11)
    assert plan_txt2img(TABLE, EULER, "Automatic", 10, leave_out).full == (*eleven[:-2], 0.0)
    assert plan_txt2img(TABLE, DDIM, "Automatic", 10, leave_out).full == tuple(timestep_sigmas(TABLE, 11))
    twice = plan_txt2img(TABLE, get_sampler("DPM2"), "Automatic", 10, leave_out)
    assert twice == plan_txt2img(TABLE, get_sampler("DPM2"), "Automatic", 10)


def test_noise_alone_may_be_scaled_as_if_a_picture_were_in_it() -> None:
    plan = plan_txt2img(TABLE, EULER, "Automatic", 10, SamplingOptions(sgm_noise_multiplier=True))
    assert torch.equal(begin_txt2img(plan, NOISE), NOISE * math.hypot(1, plan.sigmas[0]))
    timestep = plan_txt2img(TABLE, DDIM, "Automatic", 10, SamplingOptions(sgm_noise_multiplier=True))
    assert torch.equal(begin_txt2img(timestep, NOISE), NOISE * math.hypot(1, timestep.sigmas[0]))


def test_a_shared_brownian_path_spans_only_what_the_sampler_is_given() -> None:
    sde = get_sampler("DPM++ SDE")
    own = plan_img2img(TABLE, sde, "Karras", 20, 0.5)
    shared = plan_img2img(TABLE, sde, "Karras", 20, 0.5, options=SamplingOptions(shared_brownian_path=True))
    assert own.sigma_range == (own.full[-2], own.full[0])
    assert shared.sigma_range == (own.full[-2], own.sigmas[0])


def test_a_lowest_level_above_the_highest_is_refused() -> None:
    with pytest.raises(BadRequest, match="sigma_min: 20"):
        plan_txt2img(TABLE, EULER, "Karras", 10, SamplingOptions(sigma_min=20.0))
    with pytest.raises(BadRequest, match="highest level"):
        plan_txt2img(TABLE, EULER, "Beta", 10, SamplingOptions(sigma_max=0.02))
    assert plan_txt2img(TABLE, EULER, "Uniform", 10, SamplingOptions(sigma_min=20.0)).steps == 10
