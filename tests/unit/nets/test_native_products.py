"""The kernel that is compiled here multiplies as torch does; where it cannot be compiled there is none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, interpolate
from torch.nn.functional import linear as plain_linear

from darkroom.nets import native_products
from darkroom.nets.native_products import (
    ProductKernel,
    find_product_kernel,
    is_packed,
    pack_convolution,
    pack_doubled,
    pack_gated,
    pack_linear,
    pack_pointwise,
    unpack,
)

PACKS = {
    pack_linear: (64, 96),
    pack_gated: (128, 96),
    pack_convolution: (64, 96, 3, 3),
    pack_pointwise: (64, 96, 1, 1),
}


def some(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    numbers = torch.Generator().manual_seed(seed + sum(shape))
    return (scale * torch.randn(*shape, generator=numbers)).bfloat16()


def picture(*shape: int, seed: int = 0) -> Tensor:
    return some(*shape, seed=seed).contiguous(memory_format=torch.channels_last)


def is_rounded(found: Tensor, exact: Tensor) -> bool:
    """Whether an answer is what bf16 allows of the truth, which has 8 bits: half of the last one, and little more."""
    return found.dtype == torch.bfloat16 and torch.allclose(found.double(), exact, rtol=2**-8 * 1.05, atol=2e-4)


@pytest.mark.parametrize(("pack", "shape"), PACKS.items())
def test_a_packed_weight_can_be_had_back(pack: object, shape: tuple[int, ...]) -> None:
    weight = some(*shape)
    assert callable(pack)
    packed = pack(weight)
    assert is_packed(packed)
    assert not is_packed(weight)
    assert packed.is_contiguous()
    assert packed.nbytes == weight.nbytes
    assert torch.equal(unpack(packed), weight)
    assert torch.equal(unpack(weight), weight)


CONVOLUTIONS = [
    (1, 32, 32, 1, 1),
    (2, 32, 64, 3, 5),
    (3, 64, 32, 8, 8),
    (2, 320, 64, 16, 13),
    (2, 640, 32, 9, 7),
    (1, 352, 32, 6, 6),
    (1, 32, 32, 150, 170),
    (1, 64, 32, 3, 700),
]


@pytest.mark.parametrize(("batch", "inputs", "outputs", "height", "width"), CONVOLUTIONS)
def test_convolutions_are_as_near_to_the_truth_as_their_format_allows(
    products: ProductKernel, batch: int, inputs: int, outputs: int, height: int, width: int
) -> None:
    x, other = picture(batch, inputs, height, width), picture(batch, outputs, height, width, seed=1)
    weight, bias = some(outputs, inputs, 3, 3, scale=1 / (3 * inputs**0.5)), some(outputs)
    packed = pack_convolution(weight)
    exact = conv2d(x.double(), weight.double(), bias.double(), padding=1)
    found = products.convolve(x, packed, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert is_rounded(found, exact)
    assert is_rounded(products.convolve(x, packed, bias, other), exact + other.double())
    assert is_rounded(products.convolve(x.contiguous(), packed, None), exact - bias.double()[:, None, None])


@pytest.mark.parametrize(("batch", "inputs", "outputs", "height", "width"), CONVOLUTIONS)
def test_pictures_are_doubled_on_the_way(
    products: ProductKernel, batch: int, inputs: int, outputs: int, height: int, width: int
) -> None:
    x, bias = picture(batch, inputs, height, width), some(outputs)
    weight = (some(outputs, inputs, 3, 3, scale=8).round() / 256).bfloat16()  # whose sums are numbers in bf16 as well
    exact = conv2d(interpolate(x.double(), scale_factor=2.0), weight.double(), bias.double(), padding=1)
    found = products.convolve_doubled(x, pack_doubled(weight), bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert is_rounded(found, exact)
    assert is_rounded(products.convolve_doubled(x, pack_doubled(weight), None), exact - bias.double()[:, None, None])


LAYERS = [
    ((1,), 32, 32),
    ((3, 5), 64, 32),
    ((32,), 32, 96),
    ((2, 77), 768, 64),
    ((700,), 1280, 64),
    ((570,), 2560, 128),
]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), LAYERS)
def test_linear_layers_are_as_near_to_the_truth_as_their_format_allows(
    products: ProductKernel, rows: tuple[int, ...], inputs: int, outputs: int
) -> None:
    x, other = some(*rows, inputs), some(*rows, outputs, seed=1)
    weight, bias = some(outputs, inputs, scale=inputs**-0.5), some(outputs)
    packed = pack_linear(weight)
    exact = plain_linear(x.double(), weight.double(), bias.double())
    assert is_rounded(products.linear(x, packed, bias), exact)
    assert is_rounded(products.linear(x, packed, bias, other), exact + other.double())
    assert is_rounded(products.linear(x.mT.contiguous().mT, packed, None), exact - bias.double())


@pytest.mark.parametrize(("rows", "inputs", "outputs"), LAYERS)
def test_gated_layers_are_as_near_to_the_truth_as_their_format_allows(
    products: ProductKernel, rows: tuple[int, ...], inputs: int, outputs: int
) -> None:
    x, weight, bias = some(*rows, inputs), some(2 * outputs, inputs, scale=2 * inputs**-0.5), some(2 * outputs)
    values, gates = plain_linear(x.double(), weight.double(), bias.double()).chunk(2, dim=-1)
    assert is_rounded(products.gated(x, pack_gated(weight), bias), values * gelu(gates))


def test_the_gelu_of_any_number_is_right(products: ProductKernel) -> None:
    """Each position's gate is one of its inputs, and its value one."""
    gates = torch.cat([torch.linspace(-12, 12, 32 * 40), torch.tensor([0.0, -0.0, 60.0, -60.0, 3e4, -3e4])])
    x = gates.bfloat16()[:, None].expand(-1, 32)
    weight = torch.cat([torch.zeros(32, 32), torch.eye(32)]).bfloat16()
    bias = torch.cat([torch.ones(32), torch.zeros(32)]).bfloat16()
    found = products.gated(x, pack_gated(weight), bias)
    assert torch.allclose(found.double(), gelu(x.double()), rtol=2**-8, atol=1e-4)


def test_a_row_depends_neither_on_other_rows_nor_on_threads(products: ProductKernel) -> None:
    x, weight = picture(3, 640, 17, 9), pack_convolution(some(64, 640, 3, 3))
    rows, matrix = some(3, 100, 2560), pack_linear(some(64, 2560))
    sums = pack_doubled(unpack(weight))
    threads, doubled = torch.get_num_threads(), products.convolve_doubled(x, sums, None)
    convolved, multiplied = products.convolve(x, weight, None), products.linear(rows, matrix, None)
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            for i in range(3):
                assert torch.equal(products.convolve(x[i : i + 1], weight, None)[0], convolved[i])
                assert torch.equal(products.linear(rows[i], matrix, None), multiplied[i])
            assert torch.equal(products.convolve(x, weight, None), convolved)
            for i in range(3):
                assert torch.equal(products.convolve_doubled(x[i : i + 1], sums, None)[0], doubled[i])
            assert torch.equal(products.linear(rows, matrix, None), multiplied)
    finally:
        torch.set_num_threads(threads)


def test_what_is_no_number_stays_where_it_is(products: ProductKernel) -> None:
    x = picture(2, 32, 6, 6)
    x[0, 0, 0, 0] = torch.nan
    found = products.convolve(x, pack_convolution(some(32, 32, 3, 3)), None)
    seen = found.isnan().any(dim=1)
    assert seen[0, :2, :2].all()
    assert seen.sum() == 4


def test_nothing_is_computed_of_nothing(products: ProductKernel) -> None:
    assert products.convolve(picture(0, 32, 4, 4), pack_convolution(some(32, 32, 3, 3)), None).shape == (
        0,
        32,
        4,
        4,
    )
    assert products.linear(some(0, 32), pack_linear(some(64, 32)), None).shape == (0, 64)


def test_what_the_kernel_would_read_beyond_is_refused(products: ProductKernel) -> None:
    matrix, weight = pack_linear(some(64, 32)), pack_convolution(some(64, 32, 3, 3))
    with pytest.raises(ValueError, match="no product"):
        products.linear(some(5, 64), matrix, None)
    with pytest.raises(ValueError, match="no product"):
        products.linear(some(5, 32), matrix, some(32))
    with pytest.raises(ValueError, match="no product"):
        products.convolve(picture(1, 64, 4, 4), weight, None)
    with pytest.raises(RuntimeError):
        products.convolve(picture(1, 32, 4, 4), weight, None, picture(1, 64, 5, 4))
    with pytest.raises(TypeError, match="bfloat16"):
        products.linear(some(5, 32).float(), matrix, None)


def test_without_a_compiler_there_is_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_product_kernel(tmp_path) is None


def test_on_other_processors_there_is_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_products, "has_tiles", lambda: False)
    assert find_product_kernel(tmp_path) is None
