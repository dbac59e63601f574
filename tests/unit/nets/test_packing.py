"""Packed layers give what plain ones give, bit for bit, whatever becomes of their weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from darkroom.nets.native_products import ProductKernel
from darkroom.nets.packing import PackedConv2d, PackedLinear, multiply_by, pack_layers, plain, suits

Layer = PackedLinear | PackedConv2d

pytestmark = pytest.mark.skipif(not suits(torch.zeros(1, dtype=torch.bfloat16)), reason="no bf16 kernels here")


def pairs() -> list[tuple[nn.Module, Layer, Tensor]]:
    """Plain layers, packed ones of the same weights, and something to apply them to."""
    torch.manual_seed(0)
    picture = torch.randn(2, 64, 9, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    kinds: list[tuple[nn.Module, Tensor]] = [
        (nn.Linear(64, 96), torch.randn(2, 7, 64).bfloat16()),
        (nn.Linear(64, 40, bias=False), torch.randn(3, 64).bfloat16()),
        (nn.Conv2d(64, 48, 3, padding=1), picture),
        (nn.Conv2d(64, 48, 3, padding=1), picture.contiguous()),
        (nn.Conv2d(64, 32, 1, bias=False), picture),
        (nn.Conv2d(64, 32, 3, stride=2, padding=1), picture),
    ]
    found = []
    for layer, x in kinds:
        box = nn.Sequential(layer)
        plain_one = box[0].bfloat16()
        pack_layers(box)
        packed = box[0].bfloat16()
        assert isinstance(packed, Layer)
        packed.load_state_dict(plain_one.state_dict())
        found.append((plain_one, packed.requires_grad_(False), x))
    return found


@torch.inference_mode()
def test_a_packed_layer_answers_as_a_plain_one() -> None:
    for layer, packed, x in pairs():
        assert torch.equal(packed(x), layer(x))
        assert packed.weight.is_mkldnn
        assert torch.equal(packed(x[:1]), layer(x[:1]))


@torch.inference_mode()
def test_a_packed_weight_can_be_had_back_and_counts_as_many_bytes() -> None:
    for layer, packed, x in pairs():
        weight = layer.state_dict()["weight"]
        packed(x)
        assert torch.equal(plain(packed.weight), weight)
        assert torch.equal(plain(weight), weight)
        assert sum(one.nbytes for one in packed.parameters()) == sum(one.nbytes for one in layer.parameters())


@torch.inference_mode()
def test_what_is_added_is_added_before_rounding() -> None:
    for layer, packed, x in pairs():
        wide = layer.float()(x.float())
        other = torch.randn_like(wide).bfloat16()
        exact = wide + other
        answer = packed.plus(x, other)
        assert answer.dtype == torch.bfloat16
        assert (answer - exact).abs().max() <= 0.008 * exact.abs().max()
        assert (answer - exact).abs().mean() <= (wide.bfloat16() + other - exact).abs().mean()


@torch.inference_mode()
def test_other_formats_take_the_plain_way() -> None:
    for layer, packed, x in pairs():
        packed(x)
        assert torch.equal(packed.float()(x.float()), layer.float()(x.float()))
        assert not packed.weight.is_mkldnn
        assert torch.equal(packed.plus(x.float(), torch.zeros(())), layer(x.float()))


@torch.inference_mode()
def test_an_answer_does_not_depend_on_who_came_first() -> None:
    torch.manual_seed(1)
    layers = [PackedLinear(1280, 640).bfloat16().requires_grad_(False) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(77, 1280).bfloat16()
    layers[0](x[:1])
    assert torch.equal(layers[0](x), layers[1](x))


@torch.inference_mode()
def test_a_weight_put_in_its_place_counts_at_once_and_the_old_one_comes_back() -> None:
    for layer, packed, x in pairs():
        first, old = packed(x), packed.weight
        packed.weight = nn.Parameter(2 * plain(old), requires_grad=False)
        assert torch.equal(packed(x), _with(layer, 2 * plain(old))(x))
        packed.weight = old
        assert torch.equal(packed(x), first)


@torch.inference_mode()
def test_a_packed_convolution_may_see_the_opposite_edge() -> None:
    torch.manual_seed(1)
    layer = PackedConv2d(16, 16, 3, padding=1).bfloat16().requires_grad_(False)
    x = torch.randn(1, 16, 8, 8).bfloat16()
    layer(x)
    layer.padding_mode = "circular"
    assert torch.equal(layer(x.roll(3, dims=-1)), layer(x).roll(3, dims=-1))


@torch.inference_mode()
def test_a_convolution_doubles_a_picture_with_and_without_a_kernel(products: ProductKernel) -> None:
    torch.manual_seed(1)
    layer = PackedConv2d(32, 32, 3, padding=1).bfloat16().requires_grad_(False)
    x = torch.randn(2, 32, 5, 6).bfloat16().contiguous(memory_format=torch.channels_last)

    def is_right() -> bool:
        large = functional.interpolate(x.float(), scale_factor=2.0)
        framed = functional.pad(
            large, (1, 1, 1, 1), mode="circular" if layer.padding_mode == "circular" else "constant"
        )
        exact = functional.conv2d(framed, plain(layer.weight).float(), layer.bias.float())  # type: ignore[union-attr]
        return torch.allclose(layer.doubled(x).float(), exact, rtol=0.02, atol=0.01)

    assert is_right()
    multiply_by(layer, products)
    assert is_right()
    old = layer.weight
    layer.weight = nn.Parameter(-2 * plain(old), requires_grad=False)
    assert is_right()
    layer.weight = old
    assert is_right()
    layer.padding_mode = "circular"
    assert is_right()
    layer.padding_mode = "zeros"
    assert is_right()
    assert torch.equal(layer.float().doubled(x.float()), layer(functional.interpolate(x.float(), scale_factor=2.0)))


@torch.inference_mode()
def test_layers_are_computed_by_a_kernel_if_they_have_one_that_takes_them(products: ProductKernel) -> None:
    for layer, packed, x in pairs():
        multiply_by(packed, products)
        weight, exact = layer.state_dict()["weight"], layer.float()(x.float())
        found = packed(x)
        is_halving = isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
        assert packed.weight.is_mkldnn == (is_halving or exact.shape[1 if exact.dim() == 4 else -1] % 32 > 0)
        assert torch.equal(plain(packed.weight), weight)
        assert torch.allclose(found.float(), exact, rtol=0.005, atol=1e-4)
        other = torch.randn_like(exact).bfloat16()
        assert torch.allclose(packed.plus(x, other).float(), exact + other.float(), rtol=0.005, atol=1e-4)
        assert torch.equal(packed.float()(x.float()), exact)


@torch.inference_mode()
def test_a_kernel_that_is_gone_is_not_asked_and_old_weights_are_still_understood(products: ProductKernel) -> None:
    for layer, packed, x in pairs():
        multiply_by(packed, products)
        packed(x)
        ours = packed.weight
        multiply_by(packed, None)
        assert torch.equal(packed(x), layer(x))
        packed.weight = ours
        assert torch.equal(packed(x), layer(x))


@torch.inference_mode()
def test_a_kernels_convolution_may_see_the_opposite_edge(products: ProductKernel) -> None:
    torch.manual_seed(1)
    layer = PackedConv2d(32, 32, 3, padding=1).bfloat16().requires_grad_(False)
    multiply_by(layer, products)
    x = torch.randn(1, 32, 8, 8).bfloat16()
    layer(x)
    layer.padding_mode = "circular"
    assert torch.equal(layer(x.roll(3, dims=-1)), layer(x).roll(3, dims=-1))
    assert torch.equal(layer.plus(x, x), layer(x) + x)


@torch.inference_mode()
def test_a_gated_layer_is_the_same_by_a_kernel_and_can_be_used_as_a_plain_one_again(
    products: ProductKernel,
) -> None:
    torch.manual_seed(0)
    layer, x = PackedLinear(64, 128).bfloat16().requires_grad_(False), torch.randn(40, 64).bfloat16()
    weight, theirs, whole = layer.weight.clone(), layer.gated(x), layer(x)
    multiply_by(layer, products)
    ours = layer.gated(x)
    values, gates = functional.linear(x.double(), weight.double(), layer.bias.double()).chunk(2, dim=-1)
    exact = values * functional.gelu(gates)
    assert (ours - exact).abs().mean() < (theirs - exact).abs().mean()
    assert torch.equal(plain(layer.weight), weight)
    assert torch.allclose(layer(x), whole, rtol=0.02, atol=1e-4)
    assert torch.equal(layer.gated(x), ours)


def test_layers_that_learn_are_not_packed() -> None:
    layer = PackedLinear(4, 4).bfloat16()
    layer(torch.zeros(1, 4).bfloat16()).sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.is_mkldnn


def test_only_plain_layers_are_replaced() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.SiLU())
    pack_layers(network)
    linear, conv, silu = network
    assert isinstance(linear, PackedLinear)
    assert "bias" not in dict(linear.named_parameters())
    assert isinstance(conv, PackedConv2d)
    assert conv(torch.zeros(1, 2, 8, 6)).shape == (1, 4, 4, 3)
    assert isinstance(silu, nn.SiLU)


def _with(layer: nn.Module, weight: Tensor) -> nn.Module:
    layer.load_state_dict({**layer.state_dict(), "weight": weight})
    return layer
