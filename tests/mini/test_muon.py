"""Muon moves every direction of a matrix alike, and what it learns survives a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.mini import loop, muon


@pytest.mark.parametrize("shape", [(3, 24, 80), (2, 80, 24), (1, 32, 32)])
def test_an_orthogonal_stack_has_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    stack = torch.randn(shape)
    values = torch.linalg.svdvals(muon.orthogonal(stack).float())
    # The quintic trades exactness for speed; a square random matrix has values too small for five rounds.
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_a_convolution_becomes_a_matrix_and_back() -> None:
    weight = torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    matrix = muon.as_matrix(weight)
    assert matrix.shape == (8, 36)
    assert torch.equal(muon.from_matrix(matrix, weight), weight)


def test_muon_gets_the_inner_matrices_and_adam_all_else(tmp_path: Path) -> None:
    network = nn.ModuleDict(
        {
            "unet": nn.ModuleDict(
                {"conv_in": nn.Conv2d(4, 8, 3), "middle": nn.Conv2d(8, 8, 3), "conv_out": nn.Conv2d(8, 4, 3)}
            ),
            "token_embedding": nn.Embedding(10, 8),
        }
    )
    plan = loop.Plan(name="x", out=tmp_path, budget=loop.Budget(steps=1), muon=True)
    adam, inner = loop.new_optimizers(network, plan)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    moved = [{names[id(p)] for group in each.param_groups for p in group["params"]} for each in (adam, inner)]
    assert moved[1] == {"unet.middle.weight"}
    assert moved[0] | moved[1] == set(names.values())


def train(out: Path, stop: int | None, resume: bool) -> loop.State:
    plan = loop.Plan(
        name="tiny", out=out, budget=loop.Budget(steps=6), warmup_steps=2, stop_after_steps=stop, muon=True
    )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4))
    state = loop.new_state(network, plan)
    if resume:
        assert loop.restore(state, plan)

    def loss_of(_step: int, batch: torch.Tensor, _progress: float) -> tuple[torch.Tensor, int]:
        return (network(batch) - batch.flip(1)).square().mean(), len(batch)

    return loop.run(state, plan, lambda step: torch.randn(16, 4, generator=loop.torch_rng(0, step)), loss_of)


def test_a_resumed_run_with_muon_gives_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", stop=None, resume=False)
    train(tmp_path / "parts", stop=3, resume=False)
    parts = train(tmp_path / "parts", stop=None, resume=True)
    ours, theirs = whole.network.state_dict(), parts.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
