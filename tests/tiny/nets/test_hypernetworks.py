"""Hypernetworks on a tiny network, and their files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.errors import BadModelFile
from darkroom.nets.hypernetworks import read_hypernetwork
from darkroom.nets.network import Variant
from darkroom.nets.store import load
from tests.tiny.checkpoints import WIDTH, write_tiny_checkpoint

CPU = torch.device("cpu")


def side(*layers: nn.Module) -> dict[str, Tensor]:
    return {f"linear.{name}": value for name, value in nn.Sequential(*layers).state_dict().items()}


def linear(rows: int, columns: int) -> nn.Linear:
    torch.manual_seed(rows * columns)
    return nn.Linear(columns, rows)


def write(path: Path, pair: tuple[dict[str, Tensor], dict[str, Tensor]], **notes: Any) -> Path:
    torch.save(dict([(WIDTH, pair), ("step", 5), ("name", "h"), *notes.items()]), path)
    return path


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("layers", "run", "notes"),
    [
        ([linear(8, 4), linear(4, 8)], [0, 1], {}),
        ([linear(8, 4), nn.ReLU(), linear(4, 8), nn.ReLU()], [0, 1, 2, 3], {"activation_func": "relu"}),
        (
            [linear(8, 4), nn.Tanh(), linear(4, 8)],
            [0, 1, 2],
            {"activation_func": "tanh", "activate_output": False},
        ),
        (
            [linear(8, 4), nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.5), linear(4, 8), nn.LayerNorm(4)],
            [0, 1, 2, 4, 5],
            {"activation_func": "relu", "is_layer_norm": True, "use_dropout": True, "activate_output": False},
        ),
    ],
)
def test_a_file_becomes_the_layers_that_it_was_trained_with(
    tmp_path: Path, layers: list[nn.Module], run: list[int], notes: dict[str, Any]
) -> None:
    state = side(*layers)
    read = read_hypernetwork(write(tmp_path / "h.pt", (state, state), **notes), CPU, torch.float32)
    x = expected = noise(2, 4)
    for place in run:
        expected = layers[place](expected)
    torch.testing.assert_close(read.pairs[WIDTH][0](x), expected)


def test_old_files_name_their_two_layers_otherwise(tmp_path: Path) -> None:
    first, second = linear(8, 4), linear(4, 8)
    state = {
        f"linear{n}.{name}": value
        for n, layer in ((1, first), (2, second))
        for name, value in layer.state_dict().items()
    }
    read = read_hypernetwork(write(tmp_path / "h.pt", (state, state)), CPU, torch.float32)
    x = noise(2, 4)
    torch.testing.assert_close(read.pairs[WIDTH][1](x), second(first(x)))


def test_keys_and_values_are_made_of_a_changed_context_for_one_call_only(tmp_path: Path) -> None:
    """Pairs that add some of the context to itself are as good as larger projections."""
    path = write_tiny_checkpoint(tmp_path)
    network, larger = (load(path, path.with_suffix(".yaml"), CPU, torch.float32) for _ in range(2))
    for name, weight in larger._unet.named_parameters():
        if name.endswith(("to_k.weight", "to_v.weight")) and weight.shape[1] == WIDTH:
            weight.mul_(1.5)
    same = nn.Linear(WIDTH, WIDTH)
    nn.init.eye_(same.weight)
    nn.init.zeros_(same.bias)
    read = read_hypernetwork(write(tmp_path / "h.pt", (side(same), side(same))), CPU, torch.float32)
    asked = noise(1, 4, 8, 8), torch.tensor([500.0]), noise(1, 77, WIDTH)
    plain = network.denoise(*asked)
    network.variant = Variant(hypernetworks=((read, 1.0), (read, -0.25)))
    changed = network.denoise(*asked)
    torch.testing.assert_close(changed, larger.denoise(*asked))
    assert not torch.allclose(changed, plain)
    network.variant = Variant()
    assert torch.equal(network.denoise(*asked), plain)


@pytest.mark.parametrize(
    "content",
    [
        {"step": 1},
        {4: ({}, {})},
        {4: "x"},
        {4: ({"linear.0.weight": torch.ones(4, 4)}, {"linear.0.weight": torch.ones(4, 4)})},
        {4: (side(linear(4, 4)), side(linear(4, 4))), "activation_func": "__import__"},
        [1],
    ],
)
def test_other_content_is_refused_by_name(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(BadModelFile, match=r"odd\.pt"):
        read_hypernetwork(tmp_path / "odd.pt", CPU, torch.float32)
