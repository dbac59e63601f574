"""The noise table and the schedules, against numbers that the original program gave."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.sampling.names import SCHEDULERS
from darkroom.sampling.schedules import SCHEDULES, karras_between, schedule_of, timestep_sigmas, training_timesteps
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
    assert SCHEDULES[name](TABLE, 10) == pytest.approx(expected, rel=1e-5)


def test_the_ddim_schedule_may_have_a_step_more() -> None:
    expected = [14.2651, 6.57065, 3.48545, 2.04731, 1.27206, 0.790061, 0.440309, 0.0413145, 0]
    assert SCHEDULES["ddim"](TABLE, 7) == pytest.approx(expected, rel=1e-5)


def test_align_your_steps_gives_its_own_table_for_eleven_steps() -> None:
    expected = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029, 0]
    assert SCHEDULES["align_your_steps"](TABLE, 11) == pytest.approx(expected)


def test_every_listed_scheduler_has_a_function() -> None:
    assert {scheduler.name for scheduler in SCHEDULERS} == set(SCHEDULES)
    assert schedule_of("Karras") is SCHEDULES["karras"]
    assert schedule_of("Automatic") is SCHEDULES["uniform"]


@given(st.sampled_from(NAMES), st.integers(1, 300))
def test_every_schedule_descends(name: str, n: int) -> None:
    sigmas = SCHEDULES[name](TABLE, n)
    assert all(following < sigma for sigma, following in pairwise(sigmas))


@given(st.sampled_from(COUNTED), st.integers(1, 1500))
def test_a_schedule_has_a_level_more_than_steps(name: str, n: int) -> None:
    assert len(SCHEDULES[name](TABLE, n)) == n + 1


@given(st.sampled_from(NAMES), st.integers(1, 1500))
def test_only_kl_optimal_stops_above_zero(name: str, n: int) -> None:
    last = SCHEDULES[name](TABLE, n)[-1]
    assert last == pytest.approx(TABLE.sigma_min, rel=1e-5) if name == "kl_optimal" else last == 0


@given(st.integers(1, 400), st.floats(1, 10))
def test_karras_levels_start_and_end_where_they_should(n: int, rho: float) -> None:
    sigmas = karras_between(10.0, 0.1, n + 1, rho)
    assert sigmas[0] == pytest.approx(10.0, rel=1e-4)
    assert sigmas[-2] == pytest.approx(0.1, rel=1e-3)


def test_the_table_is_that_of_stable_diffusion() -> None:
    assert len(TABLE.sigmas) == 1000
    assert TABLE.sigma_min == pytest.approx(0.02916753)
    assert TABLE.sigma_max == pytest.approx(14.614642)


@pytest.mark.parametrize(
    ("sigma", "timestep"), [(10, 933.5068), (1, 353.8904), (0.1, 10.38219), (0.02, 0), (20, 999), (math.inf, 999)]
)
def test_levels_become_the_recorded_timesteps(sigma: float, timestep: float) -> None:
    assert TABLE.timestep_of(sigma) == pytest.approx(timestep, rel=1e-6)


@pytest.mark.parametrize(("timestep", "sigma"), [(0.5, 0.0347137), (499.5, 1.6155803), (998.25, 14.548319)])
def test_timesteps_become_the_recorded_levels(timestep: float, sigma: float) -> None:
    assert TABLE.sigma_of(timestep) == pytest.approx(sigma, rel=1e-6)


def test_whole_timesteps_survive_the_way_to_levels_and_back_exactly() -> None:
    assert [TABLE.timestep_of(TABLE.sigma_of(t)) for t in range(1000)] == list(range(1000))


@given(st.floats(0, 999))
def test_fractional_timesteps_survive_the_way_to_levels_and_back(timestep: float) -> None:
    assert TABLE.timestep_of(TABLE.sigma_of(timestep)) == pytest.approx(timestep, abs=1e-6)


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
