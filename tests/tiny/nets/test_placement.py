"""Networks that take turns on a device: a fake one, main memory under another name that writes down what comes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from darkroom.nets.network import Network, Variant
from darkroom.nets.placement import HOME, Tier, Turns, blocks_of
from darkroom.nets.store import Store, load
from darkroom.nets.text import Text
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae
from tests.tiny.nets.test_merging import share

CPU = torch.device("cpu")
DEVICE = torch.device("cpu", 0)
"""Not equal to "cpu", and the same memory."""


@dataclass
class Moves:
    """A device's driver that only makes copies, and remembers of what."""

    made: list[tuple[int, torch.device]] = field(default_factory=list)

    def __call__(self, weight: Tensor, device: torch.device) -> Tensor:
        self.made.append((weight.data_ptr(), device))
        return weight.clone()


def in_turn(homes: dict[int, int], moves: Moves) -> list[int]:
    """Which modules went to the device, in order, by the places where their weights are at home."""
    found: list[int] = []
    for pointer, device in moves.made:
        assert device == DEVICE
        if not found or found[-1] != homes[pointer]:
            found.append(homes[pointer])
    return found


def homes_of(modules: Sequence[nn.Module]) -> dict[int, int]:
    return {weight.data_ptr(): place for place, module in enumerate(modules) for weight in module.parameters()}


def test_one_module_is_there_at_a_time_and_nothing_is_copied_back() -> None:
    modules = [nn.Linear(2, 2), nn.Linear(2, 2)]
    homes = [[weight.data_ptr() for weight in module.parameters()] for module in modules]
    places = homes_of(modules)
    moves = Moves()
    turns = Turns(DEVICE, send=moves)
    for place in (0, 0, 1, 0):
        turns.take(modules[place])
        for other, module in enumerate(modules):
            at_home = [weight.data_ptr() for weight in module.parameters()] == homes[other]
            assert at_home == (other != place)
    turns.leave()
    assert [[weight.data_ptr() for weight in module.parameters()] for module in modules] == homes
    assert in_turn(places, moves) == [0, 1, 0]


def test_a_weight_that_was_replaced_on_the_device_comes_home_as_it_is() -> None:
    module = nn.Linear(2, 2)
    moves = Moves()
    turns = Turns(DEVICE, send=moves)
    turns.take(module)
    old, module.weight = module.weight, nn.Parameter(torch.full((2, 2), 7.0))
    turns.leave()
    assert moves.made[-1][1] == HOME
    assert (module.weight == 7).all()
    assert not any(old.data_ptr() == pointer for pointer, device in moves.made[:2] if device == HOME)


def test_a_module_that_was_dropped_is_not_kept_alive() -> None:
    turns = Turns(DEVICE, send=Moves())
    module = nn.Linear(2, 2)
    turns.take(module)
    watched = ref(module)
    del module
    assert watched() is None
    turns.take(nn.Linear(2, 2))


def placed(path: Path, tier: Tier) -> tuple[Network, Moves]:
    network = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    moves = Moves()
    network.place(Turns(DEVICE, send=moves), tier, torch.float32)
    return network, moves


def answers(network: Network) -> list[Tensor]:
    """Text, then two evaluations, then a picture, and its latent."""
    tokens = [49406, *range(320, 395), 49407]
    context = network.encode_text([Text(chunks=[tokens], weights=[[1.0] * 77])]).context
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = [network.denoise(x, torch.tensor([level]), context) for level in (500.0, 10.0)]
    picture = network.decode(noise[0])
    return [context, *noise, picture, network.encode_image(picture)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path)


def test_text_encoder_denoiser_and_autoencoder_take_turns(checkpoint: Path) -> None:
    network, moves = placed(checkpoint, "parts")
    homes = homes_of([network._text.module, network._unet, network._vae.module])
    answers(network)
    answers(network)
    assert in_turn(homes, moves) == [0, 1, 2, 0, 1, 2]


def test_the_blocks_of_a_denoiser_take_turns_in_the_order_of_their_use(checkpoint: Path) -> None:
    network, moves = placed(checkpoint, "blocks")
    blocks = list(blocks_of(network._unet))
    homes = homes_of([network._text.module, *blocks, network._vae.module])
    answers(network)
    once = list(range(1, len(blocks) + 1))
    assert len(blocks) == 5
    assert in_turn(homes, moves) == [0, *once, *once, len(blocks) + 1]


def test_a_network_that_need_not_take_turns_stays_where_it_is(checkpoint: Path) -> None:
    network, moves = placed(checkpoint, "whole")
    answers(network)
    assert moves.made == []


@pytest.mark.parametrize("tier", ["parts", "blocks"])
def test_taking_turns_changes_no_answer_with_adapters_or_without(checkpoint: Path, tmp_path: Path, tier: Tier) -> None:
    whole = load(checkpoint, checkpoint.with_suffix(".yaml"), CPU, torch.float32)
    network, _ = placed(checkpoint, tier)
    one, two = (share(write_tiny_lora(tmp_path / "Lora", name, seed)) for seed, name in enumerate(("one", "two")))
    for shares in ((), (one,), (two, one), ()):
        whole.variant = network.variant = Variant(unet=shares, text=shares)
        for expected, found in zip(answers(whole), answers(network), strict=True):
            assert torch.equal(expected, found)


def test_networks_of_one_store_share_the_turns_and_so_do_autoencoders_of_their_own(tmp_path: Path) -> None:
    first, second = (str(write_tiny_checkpoint(tmp_path, name, seed)) for seed, name in enumerate("ab"))
    moves = Moves()
    turns = Turns(DEVICE, send=moves)
    store = Store(CPU, torch.float32, 1 << 30, turns=turns)
    one, two = store.get(first, None), store.get(second, None)
    one.variant = Variant(vae=store.get_vae(str(write_tiny_vae(tmp_path / "v.safetensors")), 0.18215))
    for network in (one, two, one):
        assert network.device == DEVICE
        answers(network)
    assert len(turns._away) == len(list(one.vae.module.parameters())), "the last used is there, and nothing else"
