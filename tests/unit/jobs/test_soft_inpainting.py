"""The arithmetic of soft inpainting."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.jobs.soft_inpainting import cover_of, faded, soft_blend, soft_mix, weighted_mean, with_cover
from darkroom.jobs.spec import SoftInpainting
from darkroom.sampling.tables import NoiseTable

SOFT = SoftInpainting()


def latent(seed: int) -> torch.Tensor:
    return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(seed))


@given(level=st.floats(0.01, 15), grey=st.floats(0.01, 0.99))
def test_a_grey_mask_opens_as_the_noise_goes(level: float, grey: float) -> None:
    mask = torch.tensor([[0.0, grey, 1.0]])
    now, later = faded(mask, SOFT, level), faded(mask, SOFT, level / 2)
    assert now[0, [0, 2]].tolist() == [0, 1]
    assert later[0, 1] >= now[0, 1]
    assert now[0, 1] == pytest.approx(grey ** (level * 0.5), rel=1e-5)


def test_full_and_empty_masks_take_one_of_the_two_latents() -> None:
    kept, painted = latent(0), latent(1)
    assert torch.allclose(soft_blend(kept, painted, torch.ones(6, 5), 4.0), painted, atol=1e-4)
    assert torch.allclose(soft_blend(kept, painted, torch.zeros(6, 5), 4.0), kept, atol=1e-4)


def test_a_blend_is_as_long_as_the_mean_of_the_lengths() -> None:
    kept, painted = torch.zeros(4, 1, 1), torch.zeros(4, 1, 1)
    kept[0], painted[1] = 3, 1
    blended = soft_blend(kept, painted, torch.full((1, 1), 0.25), 4.0)
    assert blended.norm() == pytest.approx((3**4 * 0.75 + 1 * 0.25) ** 0.25, rel=1e-4)
    assert (blended[0] / blended[1]).item() == pytest.approx(9, rel=1e-4)


def test_samplers_that_count_timesteps_take_them_for_the_level() -> None:
    table = NoiseTable.scaled_linear()
    kept, painted, mask = latent(0), latent(1), torch.full((6, 5), 0.9)
    sigma = 1.5
    by_sigma = soft_mix(SOFT, kept, mask, "sigma", table)(painted, sigma)
    by_timestep = soft_mix(SOFT, kept, mask, "timestep", table)(painted, sigma)
    assert torch.equal(by_sigma, soft_blend(kept, painted, faded(mask, SOFT, sigma), 4.0))
    assert torch.equal(by_timestep, soft_blend(kept, painted, faded(mask, SOFT, table.timestep_of(sigma)), 4.0))


def plain_weighted_mean(cells: np.ndarray, low: float, high: float) -> np.ndarray:
    """The same filter cell by cell, as one would say it."""
    floor = np.exp(-4)
    out = np.empty_like(cells)
    for y, x in np.ndindex(cells.shape):
        near = [
            (cells[v, u], (np.exp(-((v - y) ** 2 + (u - x) ** 2) / 2.25) - floor) / (1 - floor))
            for v in range(max(0, y - 2), min(cells.shape[0], y + 3))
            for u in range(max(0, x - 2), min(cells.shape[1], x + 3))
        ]
        near = sorted((value, max(weight, 0)) for value, weight in near)
        total = sum(weight for _, weight in near)
        first, last = total * low, total * high
        if last - first < 1:
            middle = (first + last) / 2
            first, last = middle - 0.5, middle + 0.5
            if last > total:
                first, last = total - 1, total
            if first < 0:
                first, last = 0, 1
        position = mean = share = 0.0
        for value, weight in near:
            overlap = max(0.0, min(last, position + weight) - max(first, position))
            mean, share, position = mean + value * overlap, share + overlap, position + weight
        out[y, x] = mean / share
    return out


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.0), (0.25, 0.75), (0.0, 0.1), (0.5, 0.5)])
def test_the_weighted_mean_agrees_with_its_plain_form(low: float, high: float) -> None:
    cells = np.random.default_rng(0).random((7, 5))
    assert np.allclose(weighted_mean(cells, low, high), plain_weighted_mean(cells, low, high))


def test_nothing_covers_a_latent_that_did_not_move() -> None:
    cover = cover_of(SOFT, latent(0), latent(0), torch.ones(6, 5))
    assert not cover.any()


def test_what_moved_far_is_covered_in_full() -> None:
    init = torch.zeros(4, 6, 16)
    moved = init.clone()
    moved[:, :, :4] += 100
    cover = cover_of(SOFT, moved, init, torch.ones(6, 16))
    assert (cover[:, 0] == 255).all()
    assert not cover[:, -1].any()


def test_the_threshold_is_where_half_shows() -> None:
    init = latent(0)
    moved = init.clone()
    moved[0] += 0.5
    cover = cover_of(SOFT, moved, init, torch.ones(6, 5))
    assert np.abs(cover.astype(int) - 127).max() <= 1


def test_with_mask_influence_the_kept_part_covers_less_easily() -> None:
    init = latent(0)
    moved = init + 0.4
    mask = torch.ones(6, 5)
    mask[:, 3:] = 0.1
    cover = cover_of(SoftInpainting(mask_influence=0.5), moved, init, mask).astype(int)
    assert (cover[:, 0] > cover[:, -1]).all()


def test_a_cover_travels_as_a_fourth_channel() -> None:
    picture = np.zeros((16, 24, 3), dtype=np.uint8)
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    covered = with_cover(picture, levels)
    assert covered.shape == (16, 24, 4)
    assert np.array_equal(covered[::8, ::8, 3], levels)
    assert (covered[8:, 16:, 3] == 5).all()
