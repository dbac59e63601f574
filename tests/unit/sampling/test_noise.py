"""The random numbers of an image, against numbers that the original program gave."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from darkroom.sampling.noise import (
    BrownianPath,
    ImageNoise,
    Philox,
    SharedPath,
    Source,
    open_stream,
    paste_centred,
    slerp,
)
from darkroom.sampling.schedules import exponential
from tests.unit.sampling.toy import TABLE

SHAPE = (4, 8, 8)
SIGMAS = exponential(TABLE, 10)
RANGE = (SIGMAS[-2], SIGMAS[0])
CPU = torch.device("cpu")


def first(tensor: Tensor, n: int) -> list[float]:
    return tensor.flatten()[:n].tolist()


def path(seed: int, source: Source = "CPU", low: float = RANGE[0], high: float = RANGE[1]) -> BrownianPath:
    return BrownianPath(seed, SHAPE, low, high, lambda word: open_stream(source, word, CPU))


def recorded(*numbers: float) -> object:
    return pytest.approx(numbers, abs=2e-6)


def test_the_cpu_source_gives_the_recorded_numbers() -> None:
    noise = ImageNoise(42, SHAPE, source="CPU")
    assert first(noise.initial, 6) == recorded(1.926915, 1.487284, 0.900717, -2.105521, 0.678418, -1.234545)
    assert first(noise.normal(), 6) == recorded(-0.685482, 0.563559, -1.507175, -1.610666, -1.479047, 0.432274)
    assert first(ImageNoise(43, SHAPE).initial, 4) == recorded(-0.016604, -0.466795, 2.090898, 0.614903)


def test_the_nv_source_gives_the_recorded_numbers() -> None:
    noise = ImageNoise(42, SHAPE, source="NV")
    assert first(noise.initial, 6) == recorded(0.194019, 2.161374, -0.172051, 0.849060, -1.924399, 0.652985)
    assert first(noise.normal(), 4) == recorded(0.139137, -0.108216, -0.717422, 0.756649)
    assert first(ImageNoise(43, SHAPE, source="NV").initial, 4) == recorded(1.998265, 1.980994, 1.445771, 1.981293)


def test_a_seed_delta_changes_later_draws_only() -> None:
    noise = ImageNoise(42, SHAPE, seed_delta=31337)
    assert first(noise.initial, 3) == recorded(1.926915, 1.487284, 0.900717)
    assert first(noise.normal(), 4) == recorded(0.541950, -1.064897, -0.848128, -0.026721)


def test_a_subseed_changes_the_first_noise_only() -> None:
    noise = ImageNoise(42, SHAPE, subseed=7, subseed_strength=0.3)
    assert first(noise.initial, 6) == recorded(1.584988, 1.398570, 1.536170, -2.145949, 0.495819, -1.103935)
    assert first(noise.normal(), 3) == recorded(-0.685482, 0.563559, -1.507175)
    nv = ImageNoise(42, SHAPE, subseed=7, subseed_strength=0.3, source="NV")
    assert first(nv.initial, 4) == recorded(0.039047, 1.979743, -0.398006, 1.029047)


def test_seed_resize_puts_the_smaller_pictures_noise_in_the_middle() -> None:
    noise = ImageNoise(42, SHAPE, seed_resize_from=(32, 48))
    expected = recorded(1.642317, 1.926915, 1.487284, 0.900717, -2.105521, 0.678418, -1.234545, 1.680621)
    assert noise.initial[0, 2].tolist() == expected
    assert first(noise.normal(), 1) == recorded(-0.685482)


@pytest.mark.parametrize("size", [(0, 64), (64, -1), (64, 64)])
def test_seed_resize_from_nothing_or_the_same_size_changes_nothing(size: tuple[int, int]) -> None:
    assert torch.equal(ImageNoise(42, SHAPE, seed_resize_from=size).initial, ImageNoise(42, SHAPE).initial)


def test_philox_gives_the_recorded_numbers() -> None:
    philox = Philox(0)
    assert philox.normal((2, 3)).ravel().tolist() == recorded(
        -0.924662, -0.425344, -2.643846, 0.145184, -0.120867, -0.579726
    )
    assert philox.normal((2,)).tolist() == recorded(0.180826, -0.552263)
    assert Philox(2**32 + 5).normal((3,)).tolist() == recorded(-2.842747, 1.340492, 0.272231)
    assert Philox(12345678901234).normal((3,)).tolist() == recorded(0.238610, -0.181032, 0.225049)


@pytest.mark.parametrize("source", ["GPU", "CPU", "NV"])
@pytest.mark.parametrize("seed", [0, 999_999_999_999, 2**64 - 1])
def test_every_seed_of_64_bits_has_its_noise(seed: int, source: Source) -> None:
    noise = ImageNoise(seed, SHAPE, source=source, sigma_range=RANGE)
    assert torch.isfinite(noise.initial).all()
    assert torch.isfinite(noise.brownian(SIGMAS[0], SIGMAS[1])).all()
    assert noise.initial.dtype == torch.float32


@pytest.mark.parametrize(
    ("seed", "source", "pair", "numbers"),
    [
        (42, "CPU", 0, (-0.928323, 0.400052, 0.836344, 0.588473)),
        (43, "CPU", 0, (1.123025, -0.259303, -1.223581, 0.615848)),
        (42, "CPU", 1, (-0.095480, -0.915407, -0.556858)),
        (42, "CPU", 8, (2.003394, -0.111160)),
        (42, "NV", 0, (-0.537651, 1.611088, -0.479421, -1.149212)),
    ],
)
def test_brownian_noise_has_the_recorded_numbers(seed: int, source: Source, pair: int, numbers: list[float]) -> None:
    noise = ImageNoise(seed, SHAPE, source=source, sigma_range=RANGE)
    assert first(noise.brownian(SIGMAS[pair], SIGMAS[pair + 1]), len(numbers)) == pytest.approx(numbers, abs=2e-5)


def test_brownian_noise_leaves_the_stream_alone() -> None:
    noise = ImageNoise(42, SHAPE, sigma_range=RANGE)
    noise.brownian(SIGMAS[0], SIGMAS[1])
    assert first(noise.normal(), 1) == recorded(-0.685482)


def shared(position: int, size: int, seed: int = 42) -> ImageNoise:
    return ImageNoise(42, SHAPE, sigma_range=RANGE, shared_path=SharedPath(seed=seed, size=size, position=position))


def test_a_path_of_a_batch_of_one_is_seeded_by_the_first_number_of_the_images_seed() -> None:
    seed = int(torch.randint(0, 2**63 - 1, [], generator=torch.Generator().manual_seed(42)))
    expected = path(seed).increment(SIGMAS[1], SIGMAS[0]) / -((SIGMAS[0] - SIGMAS[1]) ** 0.5)
    assert torch.allclose(shared(0, 1).brownian(SIGMAS[0], SIGMAS[1]), expected, atol=1e-6)


def test_the_images_of_a_batch_may_share_a_path() -> None:
    parts = [shared(position, 3).brownian(SIGMAS[0], SIGMAS[1]) for position in range(3)]
    assert not torch.allclose(parts[0], parts[1])
    assert torch.equal(parts[0], shared(0, 1).brownian(SIGMAS[0], SIGMAS[1]))
    assert not torch.equal(parts[0], shared(0, 3, seed=43).brownian(SIGMAS[0], SIGMAS[1]))


def test_brownian_noise_needs_to_know_the_ends_of_the_path() -> None:
    with pytest.raises(ValueError, match="sigma_range"):
        ImageNoise(42, SHAPE).brownian(2.0, 1.0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.03, 14.6), min_size=3, max_size=3, unique=True))
def test_increments_of_a_path_add_up(times: list[float]) -> None:
    low, middle, high = sorted(round(time, 6) for time in times)
    brownian = path(1)
    whole = brownian.increment(low, high)
    assert torch.allclose(brownian.increment(low, middle) + brownian.increment(middle, high), whole, atol=1e-4)


def test_a_path_answers_the_same_in_any_order() -> None:
    pairs = [(low, high) for high, low in pairwise(SIGMAS[:-1])]
    forth, back = path(3), path(3)
    answers = {pair: forth.increment(*pair) for pair in pairs}
    assert all(torch.equal(back.increment(*pair), answers[pair]) for pair in reversed(pairs))


def test_a_path_is_clamped_to_its_ends() -> None:
    brownian = path(4)
    assert torch.equal(brownian.increment(0.0, 100.0), brownian.increment(*RANGE))
    assert torch.equal(brownian.increment(20.0, 30.0), torch.zeros(SHAPE))


def test_brownian_noise_has_unit_variance_and_reverses_its_sign_with_its_direction() -> None:
    noise = ImageNoise(5, (4, 64, 64), sigma_range=RANGE)
    for sigma, following in pairwise(SIGMAS[:-1]):
        assert noise.brownian(sigma, following).std().item() == pytest.approx(1, abs=0.04)
    assert torch.equal(noise.brownian(5.0, 2.0), -noise.brownian(2.0, 5.0))


def test_slerp_starts_at_one_end_and_arrives_at_the_other() -> None:
    a, b = ImageNoise(1, SHAPE).initial, ImageNoise(2, SHAPE).initial
    assert torch.allclose(slerp(0.0, a, b), a, atol=1e-6)
    assert torch.allclose(slerp(1.0, a, b), b, atol=1e-6)
    assert slerp(0.5, a, b).std().item() == pytest.approx(1, abs=0.15)


def test_slerp_of_parallel_tensors_is_linear_and_reversed() -> None:
    a = ImageNoise(1, SHAPE).initial
    assert torch.allclose(slerp(0.25, a, 2 * a), 0.25 * a + 0.75 * 2 * a)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_pasting_keeps_the_size_and_fills_what_overlaps(h: int, w: int, height: int, width: int) -> None:
    pasted = paste_centred(torch.ones(1, h, w), torch.zeros(1, height, width))
    assert pasted.shape == (1, height, width)
    covered = int(pasted.sum().item())
    assert covered <= min(h, height) * min(w, width)
    assert covered >= (min(h, height) - 1) * (min(w, width) - 1)
