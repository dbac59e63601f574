"""Flow matching: levels, and solvers on data whose velocity has a closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.sampling.filters import repaint_sigma
from darkroom.sampling.names import AUTOMATIC, SAMPLERS, Sampler, flow_scheduler, get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.options import NO_OPTIONS, Flow, SamplingOptions, Training
from darkroom.sampling.plan import Plan, begin_img2img, begin_txt2img, plan_img2img, plan_txt2img
from darkroom.sampling.rectified import HIGHEST, from_ratio, rectified, shift_of_area, shifted, to_ratio
from darkroom.sampling.samplers import euler, walk
from darkroom.sampling.schedules import SCHEDULES
from darkroom.sampling.steps import Knobs, Steps
from darkroom.sampling.tables import NoiseTable, noise_table

TABLE = NoiseTable.flow_matching(3.0)
MEAN, SPREAD = 0.7, 0.4
SHAPE = (4, 32, 32)
ALLOWED = [sampler for sampler in SAMPLERS if sampler.flow != "none"]
QUIET = Knobs(eta=0.0)


def x0_of(x: Tensor, sigma: float) -> Tensor:
    """The mean of what x may have been, for data that are normal around MEAN."""
    kept = 1 - sigma
    pull = kept * SPREAD**2 / (kept**2 * SPREAD**2 + sigma**2)
    return MEAN + pull * (x - kept * MEAN)


def exact(noise: Tensor) -> Tensor:
    """Where the flow carries noise to."""
    return MEAN + SPREAD * noise


def run(steps: Steps) -> Tensor:
    try:
        asked = next(steps)
        while True:
            asked = steps.send(x0_of(asked.x, asked.sigma))
    except StopIteration as end:
        latent: Tensor = end.value
        return latent


def drawn(sampler: Sampler, plan: Plan, knobs: Knobs = QUIET, seed: int = 1) -> tuple[Tensor, Tensor]:
    """The first noise, and what a sampler makes of it."""
    noise = ImageNoise(seed, SHAPE, source="CPU", sigma_range=plan.sigma_range)
    return noise.initial, run(walk(sampler, plan, begin_txt2img(plan, noise.initial), noise, knobs))


def planned(name: str, steps: int, scheduler: str = "SGM Uniform") -> Plan:
    return plan_txt2img(TABLE, get_sampler(name), scheduler, steps)


def test_levels_rise_from_nearly_nothing_to_noise_alone() -> None:
    assert TABLE.sigma_max == 1
    assert TABLE.sigma_min == pytest.approx(3 * 0.001 / (1 + 2 * 0.001))
    assert list(TABLE.sigmas) == sorted(TABLE.sigmas)
    assert TABLE.told(TABLE.sigmas[499]) == pytest.approx(1000 * 3 * 0.5 / (1 + 2 * 0.5))


@given(st.floats(0.001, 1), st.floats(0.5, 20))
def test_a_shift_moves_times_by_a_fixed_factor_of_noise_to_picture(time: float, shift: float) -> None:
    assert to_ratio(min(shifted(time, shift), 0.999)) == pytest.approx(
        to_ratio(min(shift * time / (1 + (shift - 1) * time), 0.999))
    )


@given(st.integers(1, 100_000))
def test_the_highest_level_is_noise_alone_for_pictures_of_any_size(tokens: int) -> None:
    assert NoiseTable.flow_matching(shift_of_area(tokens)).sigma_max == 1


@pytest.mark.parametrize(("tokens", "logarithm"), [(256, 0.5), (4096, 1.15), (1024, 0.63)])
def test_larger_pictures_are_shifted_farther(tokens: int, logarithm: float) -> None:
    assert math.log(shift_of_area(tokens)) == pytest.approx(logarithm)


@pytest.mark.parametrize(("size", "tokens"), [((128, 128), 4096), ((32, 32), 256), ((31, 32), 256)])
def test_a_table_without_a_shift_of_its_own_is_made_for_the_latent(size: tuple[int, int], tokens: int) -> None:
    table = noise_table(NO_OPTIONS, get_sampler("Euler"), Training(flow=Flow(shift=None)), size)
    assert table.sigmas[499] == pytest.approx(shifted(0.5, shift_of_area(tokens)))


@pytest.mark.parametrize("steps", [4, 20, 25, 50])
def test_the_simple_schedule_has_evenly_spaced_times(steps: int) -> None:
    expected = [shifted(1 - k / steps, 3.0) for k in range(steps)]
    assert SCHEDULES["simple"](TABLE, steps, NO_OPTIONS) == pytest.approx([*expected, 0.0])


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"align_your_steps"}))
def test_schedules_stay_between_noise_and_picture(name: str) -> None:
    levels = SCHEDULES[name](TABLE, 12, SamplingOptions(old_karras_sigmas=True))
    assert levels == sorted(levels, reverse=True)
    assert max(levels) <= 1.0001
    assert min(levels) >= 0


def test_levels_above_noise_alone_are_refused() -> None:
    with pytest.raises(BadRequest, match="at most 1"):
        SCHEDULES["karras"](TABLE, 12, SamplingOptions(sigma_max=14.6))


@pytest.mark.parametrize("sampler", ALLOWED, ids=lambda sampler: sampler.name)
def test_without_fresh_noise_every_sampler_follows_the_flow(sampler: Sampler) -> None:
    coarse, fine = (drawn(sampler, planned(sampler.name, steps)) for steps in (20, 80))
    errors = [float((latent - exact(noise)).abs().max()) for noise, latent in (coarse, fine)]
    assert errors[1] < min(0.1, 0.6 * errors[0])


@pytest.mark.parametrize("sampler", ALLOWED, ids=lambda sampler: sampler.name)
def test_with_fresh_noise_pictures_have_the_spread_of_the_data(sampler: Sampler) -> None:
    _, latent = drawn(sampler, planned(sampler.name, 60), Knobs(eta=1.0, s_churn=5.0))
    assert float(latent.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(latent.std()) == pytest.approx(SPREAD, rel=0.15)


@pytest.mark.parametrize("name", ["Euler a", "DPM++ 2M SDE"])
def test_fresh_noise_leads_elsewhere(name: str) -> None:
    _, still = drawn(get_sampler(name), planned(name, 10))
    _, stirred = drawn(get_sampler(name), planned(name, 10), Knobs(eta=1.0))
    assert (still - stirred).abs().mean() > 0.1


@pytest.mark.parametrize("scheduler", ["Normal", "Simple", "Beta"])
def test_eulers_method_is_the_same_in_both_forms(scheduler: str) -> None:
    plan = planned("Euler", 12, scheduler)
    noise = ImageNoise(1, SHAPE, source="CPU")
    x = begin_txt2img(plan, noise.initial)
    straight = run(euler(x, plan.sigmas, noise, QUIET))
    by_way = run(rectified(euler)(x, plan.sigmas, noise, QUIET))
    # In the other form the highest level is not infinite.
    assert (straight - by_way).abs().max() < 2e-3


def test_churn_adds_noise_without_making_pictures_brighter() -> None:
    plan = planned("Euler", 60)
    _, still = drawn(get_sampler("Euler"), plan)
    _, latent = drawn(get_sampler("Euler"), plan, Knobs(s_churn=10.0))
    assert (latent - still).abs().mean() > 0.05
    assert float(latent.std()) == pytest.approx(SPREAD, rel=0.15)


@given(st.floats(0, HIGHEST))
def test_both_forms_of_a_level_mean_the_same(sigma: float) -> None:
    assert from_ratio(to_ratio(sigma)) == pytest.approx(sigma)


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_a_picture_is_displaced_by_noise(strength: float) -> None:
    plan = plan_img2img(TABLE, get_sampler("Euler"), "Normal", 20, strength)
    init, noise = torch.full(SHAPE, 3.0), torch.ones(SHAPE)
    sigma = plan.sigmas[0]
    assert torch.allclose(begin_img2img(plan, init, noise), (1 - sigma) * init + sigma * noise)


@pytest.mark.parametrize("name", ["Euler", "Euler a", "DPM++ 2M"])
def test_outside_the_mask_the_picture_stays(name: str) -> None:
    plan = plan_img2img(TABLE, get_sampler(name), "Normal", 20, 0.8)
    mask = torch.zeros(SHAPE[1:])
    mask[:16] = 1
    init = torch.full(SHAPE, MEAN) + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
    noise = ImageNoise(1, SHAPE, source="CPU", sigma_range=plan.sigma_range)
    x = begin_img2img(plan, init, noise.initial)
    latent = run(repaint_sigma(walk(get_sampler(name), plan, x, noise, Knobs()), init, mask))
    assert (latent[:, 16:] - init[:, 16:]).abs().max() < 1e-4
    assert (latent[:, :16] - init[:, :16]).abs().mean() > 0.1


def test_automatic_is_the_models_own_schedule_whatever_the_sampler_likes() -> None:
    assert flow_scheduler(get_sampler("DPM++ 2M"), AUTOMATIC, "Simple") == "Simple"
    assert flow_scheduler(get_sampler("DPM++ 2M"), "Karras", "Simple") == "Karras"


@pytest.mark.parametrize("name", ["DDIM", "PLMS", "UniPC", "LCM", "Restart", "DPM adaptive"])
def test_what_follows_no_flow_is_refused_with_what_does(name: str) -> None:
    with pytest.raises(BadRequest, match="Euler, LMS, Heun"):
        flow_scheduler(get_sampler(name), AUTOMATIC, "Simple")


def test_a_schedule_that_was_tuned_for_other_models_is_refused() -> None:
    with pytest.raises(BadRequest, match="Align Your Steps"):
        flow_scheduler(get_sampler("Euler"), "Align Your Steps", "Simple")
