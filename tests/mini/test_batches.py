"""What a batch of the diffusion stage holds."""

import torch

from darkroom.mini import unet_stage
from darkroom.mini.dataset import KIND_SHARES, KINDS
from darkroom.mini.latents import Views


def make_views(kinds: list[int], side: int = 16) -> Views:
    count = len(kinds)
    labels = torch.full((count, 5), -1, dtype=torch.int16)
    labels[:, 0] = torch.arange(count)
    labels[:, 4] = torch.tensor(kinds)
    return Views(
        latents=torch.zeros(count, 4, side, side, dtype=torch.float16),
        tokens=torch.ones(count, 6, 77, dtype=torch.int32),
        labels=labels,
    )


def test_kinds_come_by_their_shares_however_many_views_each_has() -> None:
    kinds = [number for number in range(len(KINDS)) for _ in range(1 + 40 * (number % 2))]
    views = make_views(list(reversed(kinds)))
    rows = unet_stage.draw_rows(views, 20_000, torch.Generator().manual_seed(0))
    drawn = torch.bincount(views.labels[rows, 4].long(), minlength=len(KINDS)) / len(rows)
    wanted = torch.tensor([KIND_SHARES[kind] for kind in KINDS])
    torch.testing.assert_close(drawn, wanted, atol=0.02, rtol=0)
    assert set(rows.tolist()) == set(range(len(views)))


def test_a_kind_without_views_is_left_out() -> None:
    views = make_views([KINDS.index("single")] * 3 + [KINDS.index("pair")])
    rows = unet_stage.draw_rows(views, 500, torch.Generator().manual_seed(0))
    assert set(rows.tolist()) == {0, 1, 2, 3}


def test_native_frames_are_trained_at_all_noise_levels_and_larger_ones_at_low_noise() -> None:
    small, large = (unet_stage.draw_timesteps(4000, side, torch.Generator().manual_seed(0)) for side in (16, 64))
    assert float((small >= 350).float().mean()) > 0.75
    for times, last in ((small, 999), (large, unet_stage.REFINED_BELOW - 1)):
        assert int(times.min()) < 10
        assert int(times.max()) == last


def test_large_frames_come_late_and_by_their_shares() -> None:
    views = [make_views([0], side) for side in (16, 32, 64)]
    early = [unet_stage.choose_views(views, (0.5, 0.2, 0.3), 0, step, unet_stage.LATE - 0.01) for step in range(50)]
    late = [unet_stage.choose_views(views, (0.5, 0.2, 0.3), 0, step, unet_stage.LATE) for step in range(2000)]
    assert set(early) == {0}
    shares = torch.bincount(torch.tensor(late)) / len(late)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.2, 0.3]), atol=0.04, rtol=0)
