"""What a network predicts becomes an x0: noise and v, by the formulas as they stand in the literature."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from darkroom.engine.runner import estimate_x0
from darkroom.jobs.ops import Cond, Row
from darkroom.nets.network import Network
from darkroom.nets.store import load
from tests.tiny.checkpoints import WIDTH, write_tiny_checkpoint

X = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1)) * 3
COND = Cond(torch.zeros(77, WIDTH))
SIGMA, TIMESTEP = 2.5, 621.4


def network(folder: Path, prediction: str) -> Network:
    path = write_tiny_checkpoint(folder, prediction=prediction)
    return load(path, path.with_suffix(".yaml"), torch.device("cpu"), torch.float32)


def estimate(made: Network, v_sigma: float | None = None) -> tuple[Tensor, Tensor]:
    """The network's own output, and the x0 that is made of it."""
    scaled = X / math.hypot(1, SIGMA)
    output = made.denoise(scaled[None], torch.tensor([TIMESTEP]), COND.context[None])[0]
    [x0] = estimate_x0(made, [Row(X, SIGMA, TIMESTEP, COND, v_sigma=v_sigma)])
    return output, x0


def test_noise_is_taken_off_as_it_is(tmp_path: Path) -> None:
    noise, x0 = estimate(network(tmp_path, "eps"))
    assert torch.allclose(x0, X - SIGMA * noise, atol=1e-5)


def test_a_v_is_scaled_by_its_level(tmp_path: Path) -> None:
    v, x0 = estimate(network(tmp_path, "v"))
    assert torch.allclose(x0, X / (SIGMA**2 + 1) - v * SIGMA / math.hypot(1, SIGMA), atol=1e-5)


@pytest.mark.parametrize("level", [2.4, SIGMA])
def test_a_v_may_be_turned_into_noise_at_a_neighbouring_level(tmp_path: Path, level: float) -> None:
    v, x0 = estimate(network(tmp_path, "v"), level)
    alpha, sigma = 1 / math.hypot(1, level), level / math.hypot(1, level)
    noise = alpha * v + sigma * X / math.hypot(1, SIGMA)
    assert torch.allclose(x0, X - SIGMA * noise, atol=1e-5)


def test_a_v_may_be_taken_for_noise(tmp_path: Path) -> None:
    output, x0 = estimate(network(tmp_path, "v"), 0.0)
    assert torch.allclose(x0, X - SIGMA * output, atol=1e-5)
