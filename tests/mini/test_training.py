"""A run that was stopped and resumed gives the weights of one that was not; the arithmetic of the training holds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from darkroom.mini import latents, loop, norms, unet_stage
from darkroom.mini.networks import alphas_cumprod, build_vae


def train_small(out: Path, stop: int | None, resume: bool) -> loop.State:
    plan = loop.Plan(name="tiny", out=out, budget=loop.Budget(steps=8), warmup_steps=2, stop_after_steps=stop)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))
    state = loop.new_state(network, plan)
    if resume:
        assert loop.restore(state, plan)

    def make_batch(step: int) -> Tensor:
        return torch.randn(16, 4, generator=loop.torch_rng(plan.seed, step))

    def loss_of(step: int, batch: Tensor, progress: float) -> tuple[Tensor, int]:
        return (network(batch) - batch.sum(1, keepdim=True)).square().mean(), len(batch)

    return loop.run(state, plan, make_batch, loss_of)


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train_small(tmp_path / "whole", stop=None, resume=False)
    train_small(tmp_path / "parts", stop=3, resume=False)
    parts = train_small(tmp_path / "parts", stop=None, resume=True)
    assert whole.step == parts.step == 8
    for name in ("network", "average"):
        ours, theirs = getattr(whole, name).state_dict(), getattr(parts, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_quick_group_norm_is_group_norm() -> None:
    torch.manual_seed(0)
    reference = nn.GroupNorm(4, 16)
    nn.init.normal_(reference.weight)
    quick = nn.GroupNorm(4, 16)
    quick.load_state_dict(reference.state_dict())
    norms.quicken_group_norms(quick)
    x = (torch.randn(2, 16, 5, 6) + 1).contiguous(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    direction = torch.randn(2, 16, 5, 6)
    (quick(ours) * direction).sum().backward()
    (reference(theirs) * direction).sum().backward()
    torch.testing.assert_close(quick(x), reference(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quick.weight.grad, reference.weight.grad, atol=1e-3, rtol=1e-3)


def test_whitening_leaves_the_pictures_and_evens_out_the_latents() -> None:
    torch.manual_seed(0)
    vae = build_vae((32, 32)).eval()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mode()).sample
        latents.fold_whitening(vae, *latents.whitening(vae.encode(images).latent_dist.mode()))
        encoded = vae.encode(images).latent_dist.mode()
        after = vae.decode(encoded).sample
    torch.testing.assert_close(before, after, atol=2e-3, rtol=1e-3)
    flat = encoded.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(torch.cov(flat), torch.eye(4), atol=5e-2, rtol=0)


def test_the_target_leads_back_to_the_latent_from_noise_alone_too() -> None:
    torch.manual_seed(0)
    alphas = alphas_cumprod()
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    times = torch.tensor([10, 500, 999])
    mixed, target, weight = unet_stage.noisy(clean, noise, times, torch.tensor([False, False, True]), alphas)
    signal, sigma = alphas[times].sqrt().view(-1, 1, 1, 1), (1 - alphas[times]).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close((mixed - sigma * target) / signal, clean, atol=1e-3, rtol=1e-3)
    assert torch.equal(mixed[2], noise[2])
    assert float(weight.min()) > 0
    assert weight.argmax() == 2


def test_early_steps_learn_slowly_and_the_last_ones_hardly() -> None:
    plan = loop.Plan(name="x", out=Path("unused"), budget=loop.Budget(steps=100), warmup_steps=10, peak_lr=1.0)
    rates = [loop.learning_rate(plan, step, step / 100) for step in range(100)]
    assert rates[0] < rates[9]
    assert rates[99] < 0.05
    assert max(rates) <= 1.0


@pytest.mark.parametrize(("steps", "elapsed", "expected"), [(0, 0.0, 0.0), (5, 0.0, 0.5), (20, 0.0, 1.0)])
def test_a_budget_of_steps_ends_exactly(steps: int, elapsed: float, expected: float) -> None:
    assert loop.Budget(steps=10).progress(steps, elapsed) == expected
