"""Rows that show a UNet the same latent share what comes before the text, and answer as if they did not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from darkroom.nets.network import Network
from darkroom.nets.shared_beginning import find_first, shared_beginning
from darkroom.nets.store import load
from darkroom.nets.unet import denoise
from darkroom.nets.variants import merged_tokens, tiled
from tests.tiny.checkpoints import write_tiny_checkpoint


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    path: Path = write_tiny_checkpoint(tmp_path_factory.mktemp("shared"))
    return load(path, path.with_suffix(".yaml"), torch.device("cpu"), torch.float32)


def asked() -> tuple[Tensor, Tensor, Tensor]:
    """Four rows of which two show the same latent at the same level."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(4, 4, 8, 8, generator=numbers)
    x[2] = x[3] = x[0]
    return x, torch.tensor([500.0, 500.0, 500.0, 400.0]), torch.randn(4, 77, 64, generator=numbers)


def test_rows_are_alike_where_latent_and_level_are() -> None:
    x, timesteps, _ = asked()
    assert find_first(x, timesteps) == [0, 1, 0, 3]


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_what_is_shared_changes_no_answer(network: Network, ratio: float) -> None:
    x, timesteps, context = asked()
    unet = network._unet
    with torch.inference_mode(), merged_tokens(unet, ratio, (8, 8)), tiled(unet):
        apart = denoise(unet, x, timesteps, context)
        with shared_beginning(unet, find_first(x, timesteps)):
            together = denoise(unet, x, timesteps, context)
    torch.testing.assert_close(together, apart)


def test_layers_before_the_text_see_rows_that_are_alike_once(network: Network) -> None:
    x, timesteps, context = asked()
    seen: list[int] = []
    unet = network._unet
    with shared_beginning(unet, find_first(x, timesteps)):
        inner = unet.conv_in.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
        network.denoise(x, timesteps, context)
    inner.remove()
    assert seen == [3]
