"""Weights held in eight bits: what they compute, what they take, and that nothing of the widening stays."""

from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.nets.eight_bits import EIGHT_BITS, held_in_eight_bits, widen_in_use
from darkroom.nets.kernels import find_kernels
from darkroom.nets.native_products import is_packed
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import Store, load
from darkroom.nets.text import Text
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.nets.test_merging import share

CPU = torch.device("cpu")


def loaded(path: Path, *, eight_bits: bool, dtype: torch.dtype = torch.float32) -> Network:
    return load(path, path.with_suffix(".yaml"), CPU, dtype, eight_bits=eight_bits)


def answers(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens = [49406, *range(320, 395), 49407]
    context = network.encode_text([Text(chunks=[tokens], weights=[[1.0] * 77])]).context
    x = torch.randn(1, 4, 8, 8, generator=generator)
    return context, network.denoise(x, torch.tensor([500.0]), context)


def rounded(network: Network) -> Network:
    """The network with every weight that may be held in eight bits rounded to them."""
    for module in (network._text.module, network._unet):
        small = set(held_in_eight_bits(module))
        for name, value in module.named_parameters():
            if name in small:
                value.copy_(value.to(EIGHT_BITS).to(value.dtype))
    return network


def test_it_computes_what_the_rounded_weights_compute(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path)
    found, expected = answers(loaded(path, eight_bits=True)), answers(rounded(loaded(path, eight_bits=False)))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_kernels_of_our_own_keep_their_order_of_them(tmp_path: Path) -> None:
    kernels = find_kernels(tmp_path / "kernels")
    if kernels.product is None:
        pytest.skip("no AMX or no C compiler here")
    path = write_tiny_checkpoint(tmp_path)
    network, wide = (loaded(path, eight_bits=small, dtype=torch.bfloat16) for small in (True, False))
    rounded(wide)
    for one in (network, wide):
        one.compute_by(kernels)
    first, expected = answers(network)[1], answers(wide)[1]
    held = [weight for weight in network._unet.parameters() if is_packed(weight)]
    assert held
    assert all(weight.dtype == EIGHT_BITS for weight in held)
    assert torch.allclose(first, expected, atol=0.05)
    assert torch.equal(answers(network)[1], first)
    assert all(any(one is weight for one in network._unet.parameters()) for weight in held)


def test_matrices_and_convolutions_take_a_quarter_and_the_autoencoder_stays_as_it_is(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path)
    network, wide = loaded(path, eight_bits=True), loaded(path, eight_bits=False)
    before = dict(wide._unet.named_parameters())
    small = set(held_in_eight_bits(network._unet))
    assert len(small) > 50
    for name, value in network._unet.named_parameters():
        assert value.nbytes == before[name].nbytes // (4 if name in small else 1)
    assert all(value.dtype == torch.float32 for value in network._vae.module.parameters())


def test_adapters_are_merged_into_them_and_taken_out_bit_for_bit(tmp_path: Path) -> None:
    network = loaded(write_tiny_checkpoint(tmp_path), eight_bits=True)
    held = {name: value.clone() for name, value in network._unet.named_parameters()}
    _, before = answers(network)
    network.variant = Variant(unet=(share(write_tiny_lora(tmp_path / "Lora", "one")),))
    _, changed = answers(network)
    network.variant = Variant()
    _, after = answers(network)
    assert not torch.equal(before, changed)
    assert torch.equal(before, after)
    for name, value in network._unet.named_parameters():
        assert torch.equal(value.view(torch.uint8), held[name].view(torch.uint8))


def test_a_layer_that_fails_gets_its_weight_back() -> None:
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(layer.weight.to(EIGHT_BITS), requires_grad=False)
    widen_in_use(layer)
    with pytest.raises(RuntimeError):
        layer(torch.ones(1, 4))
    assert layer.weight.dtype == EIGHT_BITS
    assert layer(torch.ones(1, 3)).dtype == torch.float32


def test_a_checkpoint_may_be_loaded_in_both_ways_at_once(tmp_path: Path) -> None:
    name = str(write_tiny_checkpoint(tmp_path))
    store = Store(CPU, torch.float32, 1 << 30)
    wide, small = store.get(name, None), store.get(name, None, eight_bits=True)
    assert store.get(name, None) is wide
    assert store.find(name, eight_bits=True) is small
    assert small.nbytes < wide.nbytes
    assert store.nbytes == wide.nbytes + small.nbytes
    assert small.dtype == torch.float32


def test_an_autoencoder_may_have_a_format_of_its_own(tmp_path: Path) -> None:
    """It is read from the file in that format, not rounded to the others' first."""
    name = str(write_tiny_checkpoint(tmp_path, dtype=torch.float32))
    network = Store(CPU, torch.bfloat16, 1 << 30, vae_dtype=torch.float32).get(name, None)
    exact = Store(CPU, torch.float32, 1 << 30).get(name, None)
    assert network.dtype == torch.bfloat16
    for one, other in zip(network._vae.module.parameters(), exact._vae.module.parameters(), strict=True):
        assert torch.equal(one, other)
