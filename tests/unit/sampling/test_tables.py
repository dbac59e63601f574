"""The noise that models were trained on, against numbers that the original program gave."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import BadRequest
from darkroom.sampling.names import SAMPLERS, Sampler, get_sampler
from darkroom.sampling.options import NO_OPTIONS, SamplingOptions, Training
from darkroom.sampling.tables import NoiseTable, noise_table
from tests.unit.sampling.toy import CURVE, TABLE

EULER, LCM = get_sampler("Euler"), get_sampler("LCM")


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


@pytest.mark.parametrize(("sigma", "timestep"), [(10, 934), (1, 354), (0.1, 10), (0.02, 0), (20, 999)])
def test_quantised_timesteps_are_the_nearest_of_the_table(sigma: float, timestep: int) -> None:
    assert noise_table(SamplingOptions(quantize=True), EULER).timestep_of(sigma) == timestep


def test_half_precision_rounds_every_step_of_the_arithmetic() -> None:
    table = noise_table(SamplingOptions(downcast_alphas=True), EULER)
    assert table.sigmas[0] == 0.03125
    assert [table.sigmas[i] for i in (1, 500, 999)] == pytest.approx([0.03830, 1.618164, 14.609375], abs=5e-6)
    assert table.marks[0] == pytest.approx(-3.464844, abs=1e-6)


def test_zero_terminal_snr_leaves_no_picture_in_the_last_level() -> None:
    table = noise_table(SamplingOptions(zero_terminal_snr=True), EULER)
    assert [table.sigmas[i] for i in (998, 999)] == pytest.approx([2254.24, 4518.76], abs=0.01)
    assert table.sigma_min == pytest.approx(TABLE.sigma_min, rel=1e-4)


def test_half_precision_has_no_level_without_a_picture() -> None:
    both = SamplingOptions(zero_terminal_snr=True, downcast_alphas=True)
    with pytest.raises(BadRequest, match="use_downcasted_alpha_bar"):
        noise_table(both, EULER)
    assert math.isfinite(noise_table(both, get_sampler("DDIM")).sigma_max)


def test_a_checkpoint_may_have_been_trained_on_other_noise() -> None:
    training = Training(start=0.0015, end=0.0195, timesteps=500)
    table = noise_table(NO_OPTIONS, EULER, training)
    assert table.sigmas == NoiseTable.scaled_linear(0.0015, 0.0195, 500).sigmas
    assert table.last_timestep == 499


def test_lcm_knows_every_twentieth_level() -> None:
    table = noise_table(NO_OPTIONS, LCM)
    assert table.sigmas == TABLE.sigmas[19::20]
    assert (table.first_timestep, table.last_timestep) == (19, 999)
    assert [table.timestep_of(sigma) for sigma in (20, 13.0, 1.0, 0.02)] == [999, 979, 359, 19]
    assert [table.sigma_of(t) for t in (0, 19, 39, 999, 1500)] == [TABLE.sigmas[t] for t in (19, 19, 39, 999, 999)]
    assert table.sigma_of(29) == pytest.approx(math.sqrt(TABLE.sigmas[19] * TABLE.sigmas[39]))


@given(st.floats(0, 999))
def test_a_continuous_table_interpolates_the_logarithm_of_alpha(t: float) -> None:
    low = int(t)
    ends = [-math.log1p(TABLE.sigmas[i] ** 2) / 2 for i in (low, min(low + 1, 999))]
    alpha = math.exp(ends[0] + (t - low) * (ends[1] - ends[0]))
    assert CURVE.sigma_of(t) == pytest.approx(math.sqrt(1 - alpha**2) / alpha, rel=2e-4)
    assert CURVE.timestep_of(CURVE.sigma_of(t)) == pytest.approx(t, abs=1e-4)


def test_a_v_is_read_at_the_level_of_the_question() -> None:
    assert TABLE.v_level(1.5) == 1.5


def test_a_v_at_a_fractional_timestep_of_unipc_is_read_at_the_one_below() -> None:
    assert CURVE.v_level(CURVE.sigma_of(221.99998)) == CURVE.sigmas[221]
    assert CURVE.v_level(CURVE.sigmas[333]) == CURVE.sigmas[333]


def test_lcm_takes_every_answer_for_noise() -> None:
    assert noise_table(NO_OPTIONS, LCM).v_level(1.5) == 0


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("half", [False, True])
def test_levels_and_marks_ascend(sampler: Sampler, half: bool) -> None:
    table = noise_table(SamplingOptions(downcast_alphas=half), sampler)
    assert list(table.sigmas) == sorted(table.sigmas)
    assert list(table.marks) == sorted(table.marks)
