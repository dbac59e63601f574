"""The noise table and the schedules, against numbers that the original program gave."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.sampling.names import SCHEDULERS, get_sampler
from darkroom.sampling.options import NO_OPTIONS, SamplingOptions, Training
from darkroom.sampling.schedules import (
    SCHEDULES,
    align_your_steps,
    karras_between,
    schedule_of,
    timestep_sigmas,
    training_timesteps,
)
from darkroom.sampling.tables import noise_table
from tests.unit.sampling.toy import TABLE

TEN_STEPS = {
    "uniform": "14.6146 7.83988 4.60917 2.91831 1.95016 1.34493 0.932358 0.624977 0.368658 0.0291675 0",
    "normal": "14.6146 7.83988 4.60917 2.91831 1.95016 1.34493 0.932358 0.624977 0.368658 0.0291675 0",
    "karras": "14.6146 9.10293 5.4784 3.16861 1.74942 0.914077 0.446921 0.2014 0.0819111 0.0291675 0",
    "exponential": "14.6146 7.32488 3.67124 1.84003 0.922227 0.462222 0.231666 0.116111 0.0581952 0.0291675 0",
    "polyexponential": "14.6146 7.32488 3.67124 1.84003 0.922227 0.462222 0.231666 0.116111 0.0581952 0.0291675 0",
    "sgm_uniform": "14.6146 8.30717 5.09241 3.32507 2.27973 1.61558 1.16286 0.831884 0.571189 0.343705 0",
    "kl_optimal": "14.6146 4.56504 2.63289 1.78645 1.29477 0.961588 0.711627 0.50942 0.335638 0.178347 0.0291675",
    "align_your_steps": "14.615 6.11351 3.56511 2.39387 1.64996 1.13579 0.742518 0.445007 0.169205 0.029 0",
    "simple": "14.6146 8.3028 5.08776 3.32108 2.27646 1.61289 1.16058 0.82986 0.569285 0.341674 0",
    "ddim": "8.39068 5.13443 3.34776 2.29285 1.62369 1.16822 0.835653 0.57405 0.346187 0.0413145 0",
    "beta": "14.6146 13.9278 12.491 10.5976 8.44244 6.20137 4.0462 2.15283 0.716024 0.0291675 0",
}
NAMES = sorted(SCHEDULES)
COUNTED = [name for name in NAMES if name != "ddim"]


@pytest.mark.parametrize("name", TEN_STEPS)
def test_ten_steps_have_the_recorded_levels(name: str) -> None:
    expected = [float(word) for word in TEN_STEPS[name].split()]
    assert SCHEDULES[name](TABLE, 10, NO_OPTIONS) == pytest.approx(expected, rel=1e-5)


def test_the_ddim_schedule_may_have_a_step_more() -> None:
    expected = [14.2651, 6.57065, 3.48545, 2.04731, 1.27206, 0.790061, 0.440309, 0.0413145, 0]
    assert SCHEDULES["ddim"](TABLE, 7, NO_OPTIONS) == pytest.approx(expected, rel=1e-5)


def test_align_your_steps_gives_its_own_table_for_eleven_steps() -> None:
    expected = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029, 0]
    assert align_your_steps(TABLE, 11) == pytest.approx(expected)


def test_align_your_steps_has_a_table_for_sdxl() -> None:
    table = noise_table(NO_OPTIONS, get_sampler("Euler"), Training(sdxl=True))
    expected = [14.615, 5.9634, 3.33897, 1.85505, 1.10233, 0.674959, 0.431142, 0.260621, 0.122519, 0.029, 0]
    assert align_your_steps(table, 10) == pytest.approx(expected, rel=1e-5)


def test_a_single_step_of_align_your_steps_is_the_last() -> None:
    assert align_your_steps(TABLE, 1) == pytest.approx([0.029, 0])


LIMITED = ["karras", "exponential", "polyexponential", "kl_optimal", "beta"]


@pytest.mark.parametrize("name", LIMITED)
def test_the_ends_of_a_schedule_can_be_told(name: str) -> None:
    sigmas = SCHEDULES[name](TABLE, 10, SamplingOptions(sigma_min=0.5, sigma_max=8.0))
    assert sigmas[0] == pytest.approx(8.0, rel=1e-5)
    assert sigmas[-1 if name == "kl_optimal" else -2] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("name", ["normal", "sgm_uniform"])
def test_the_ends_of_even_timesteps_can_be_told(name: str) -> None:
    sigmas = SCHEDULES[name](TABLE, 10, SamplingOptions(sigma_min=0.5, sigma_max=8.0))
    timesteps = [TABLE.timestep_of(sigma) for sigma in sigmas[:-1]]
    assert sigmas[0] == pytest.approx(8.0, rel=1e-5)
    assert [a - b for a, b in pairwise(timesteps)] == pytest.approx([timesteps[0] - timesteps[1]] * 9, rel=1e-3)
    assert (sigmas[-2] == pytest.approx(0.5, rel=1e-5)) == (name == "normal")


@pytest.mark.parametrize("name", ["uniform", "simple", "ddim", "align_your_steps"])
def test_some_schedules_have_fixed_ends(name: str) -> None:
    told = SamplingOptions(sigma_min=0.5, sigma_max=8.0, old_karras_sigmas=True)
    assert SCHEDULES[name](TABLE, 10, told) == SCHEDULES[name](TABLE, 10, NO_OPTIONS)


def test_the_old_limits_are_ten_and_a_tenth() -> None:
    assert SCHEDULES["karras"](TABLE, 5, SamplingOptions(old_karras_sigmas=True)) == karras_between(10.0, 0.1, 5)
    both = SamplingOptions(old_karras_sigmas=True, sigma_max=8.0)
    assert SCHEDULES["karras"](TABLE, 5, both) == karras_between(8.0, 0.1, 5)


def test_rho_bends_the_two_schedules_that_have_one() -> None:
    bent = SamplingOptions(rho=3.0)
    assert SCHEDULES["karras"](TABLE, 5, bent) == karras_between(TABLE.sigma_max, TABLE.sigma_min, 5, 3.0)
    levels = SCHEDULES["polyexponential"](TABLE, 3, bent)
    low, high = math.log(TABLE.sigma_min), math.log(TABLE.sigma_max)
    assert math.log(levels[1]) == pytest.approx(low + 0.5**3 * (high - low), rel=1e-5)
    assert SCHEDULES["exponential"](TABLE, 5, bent) == SCHEDULES["exponential"](TABLE, 5, NO_OPTIONS)


def test_the_quantiles_of_a_uniform_distribution_are_even() -> None:
    even = SCHEDULES["beta"](TABLE, 3, SamplingOptions(beta_alpha=1.0, beta_beta=1.0))
    assert even[1] == pytest.approx((TABLE.sigma_min + TABLE.sigma_max) / 2, rel=1e-6)


def test_half_precision_gives_the_recorded_levels() -> None:
    table = noise_table(SamplingOptions(downcast_alphas=True), get_sampler("Euler"))
    expected = [14.60904, 7.83494, 4.61043, 2.91914, 1.95027, 1.34466, 0.93210, 0.62502, 0.36860, 0.03128, 0]
    assert SCHEDULES["uniform"](table, 10, NO_OPTIONS) == pytest.approx(expected, abs=6e-6)


def test_lcm_spaces_its_own_timesteps_evenly() -> None:
    table = noise_table(NO_OPTIONS, get_sampler("LCM"))
    sigmas = SCHEDULES["automatic"](table, 4, NO_OPTIONS)
    assert [TABLE.timestep_of(sigma) for sigma in sigmas[:-1]] == pytest.approx([999, 672.33, 345.67, 19], abs=0.7)
    karras = SCHEDULES["karras"](table, 4, NO_OPTIONS)
    assert (karras[0], karras[-2]) == pytest.approx((table.sigma_max, table.sigma_min), rel=1e-5)


def test_every_listed_scheduler_has_a_function() -> None:
    assert {scheduler.name for scheduler in SCHEDULERS} == set(SCHEDULES)
    assert schedule_of("Karras") is SCHEDULES["karras"]
    assert schedule_of("Automatic") is SCHEDULES["uniform"]


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 300))
def test_every_schedule_descends(name: str, n: int) -> None:
    sigmas = SCHEDULES[name](TABLE, n, NO_OPTIONS)
    assert all(following < sigma for sigma, following in pairwise(sigmas))


@settings(deadline=None)
@given(st.sampled_from(COUNTED), st.integers(1, 1500))
def test_a_schedule_has_a_level_more_than_steps(name: str, n: int) -> None:
    assert len(SCHEDULES[name](TABLE, n, NO_OPTIONS)) == n + 1


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 1500))
def test_only_kl_optimal_stops_above_zero(name: str, n: int) -> None:
    last = SCHEDULES[name](TABLE, n, NO_OPTIONS)[-1]
    assert last == pytest.approx(TABLE.sigma_min, rel=1e-5) if name == "kl_optimal" else last == 0


@given(st.integers(1, 400), st.floats(1, 10))
def test_karras_levels_start_and_end_where_they_should(n: int, rho: float) -> None:
    sigmas = karras_between(10.0, 0.1, n + 1, rho)
    assert sigmas[0] == pytest.approx(10.0, rel=1e-4)
    assert sigmas[-2] == pytest.approx(0.1, rel=1e-3)


@given(st.integers(1, 2000))
def test_training_timesteps_ascend_within_the_table(n: int) -> None:
    timesteps = training_timesteps(n)
    assert timesteps == sorted(timesteps)
    assert timesteps[0] == 1
    assert timesteps[-1] <= 999
    assert len(timesteps) >= min(n, 1000)


def test_the_levels_of_training_timesteps_descend_and_do_not_end_in_zero() -> None:
    sigmas = timestep_sigmas(TABLE, 10)
    assert [TABLE.timestep_of(sigma) for sigma in sigmas] == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
