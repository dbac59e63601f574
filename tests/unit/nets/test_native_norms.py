"""The kernel that is compiled here normalises as torch does; where it cannot be compiled there is none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import group_norm, silu

from darkroom.nets.native_norms import AVX2, AVX512, NormKernel, find_norm_kernel, fits, make_norm_kernel

WAYS = {"AVX-512": (AVX512, "avx512_bf16"), "AVX2": (AVX2, "avx2")}


@pytest.fixture(scope="module", params=WAYS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NormKernel:
    flags, needed = WAYS[request.param]
    folder = tmp_path_factory.mktemp("kernels")
    if not torch.cpu.get_capabilities().get(needed) or find_norm_kernel(folder) is None:
        pytest.skip(f"no {request.param} or no C compiler here")
    return make_norm_kernel(flags, folder)


def make(*shape: int, groups: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A picture `[B, C, H, W]`, something to be added to it, weights and biases."""
    numbers = torch.Generator().manual_seed(seed + groups + sum(shape))
    x = torch.randn(*shape, generator=numbers).bfloat16().contiguous(memory_format=torch.channels_last)
    added, weight, bias = (
        torch.randn(*size, generator=numbers).bfloat16() for size in (shape[:2], shape[1:2], shape[1:2])
    )
    return x, added, weight, bias


def exactly(x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    moved = x.double() if added is None else x.double() + added.double()[:, :, None, None]
    return group_norm(moved.contiguous(), groups, weight.double(), bias.double(), eps)


SHAPES = [
    ((1, 2, 1, 1), 1),
    ((1, 6, 1, 2), 3),
    ((2, 30, 5, 7), 3),
    ((3, 64, 8, 8), 32),
    ((2, 320, 9, 13), 32),
    ((1, 129, 33, 1), 43),
    ((1, 960, 16, 16), 32),
    ((2, 128, 67, 65), 32),
    ((1, 32, 260, 260), 32),
]


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_the_kernel_is_as_near_to_the_truth_as_its_format_allows(
    kernel: NormKernel, shape: tuple[int, ...], groups: int
) -> None:
    x, added, weight, bias = make(*shape, groups=groups)
    kept = x.clone()
    for what in (None, added):
        exact = exactly(x, what, weight, bias, groups)
        plain = kernel(x, weight, bias, groups, 1e-5, added=what)
        active = kernel(x, weight, bias, groups, 1e-5, added=what, activate=True)
        for found, wanted in ((plain, exact), (active, silu(exact))):
            assert (found.shape, found.dtype) == (x.shape, torch.bfloat16)
            assert found.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=2**-8 + 1e-4)
    assert torch.equal(x, kept)


def test_the_answer_may_take_the_pictures_place(kernel: NormKernel) -> None:
    x, added, weight, bias = make(2, 40, 9, 9, groups=4)
    apart = kernel(x, weight, bias, 4, 1e-5, added=added, activate=True)
    over = kernel(x, weight, bias, 4, 1e-5, added=added, activate=True, over=True)
    assert over is x
    assert torch.equal(over, apart)


def test_a_picture_in_plain_order_is_put_in_order(kernel: NormKernel) -> None:
    x, _, weight, bias = make(2, 32, 6, 5, groups=8)
    assert torch.equal(kernel(x.contiguous(), weight, bias, 8, 1e-5), kernel(x, weight, bias, 8, 1e-5))
    part = torch.cat([x, x], dim=1)[:, 32:]
    assert torch.equal(kernel(part, weight, bias, 8, 1e-5), kernel(x, weight, bias, 8, 1e-5))


@pytest.mark.parametrize("shape", [(3, 64, 16, 16), (3, 128, 48, 50), (2, 64, 130, 130)])
def test_no_row_depends_on_its_company_nor_on_the_number_of_threads(kernel: NormKernel, shape: tuple[int, ...]) -> None:
    x, added, weight, bias = make(*shape, groups=32)
    together = kernel(x, weight, bias, 32, 1e-5, added=added, activate=True)
    alone = kernel(x[1:2], weight, bias, 32, 1e-5, added=added[1:2], activate=True)
    assert torch.equal(alone, together[1:2])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(kernel(x, weight, bias, 32, 1e-5, added=added, activate=True), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("value", [0.0, 5.0, -300.0])
def test_a_picture_of_one_colour_becomes_the_bias(kernel: NormKernel, value: float) -> None:
    _, _, weight, bias = make(1, 64, 20, 20, groups=8)
    flat = torch.full((1, 64, 20, 20), value).bfloat16().contiguous(memory_format=torch.channels_last)
    found = kernel(flat, weight, bias, 8, 1e-5)
    assert torch.equal(found, bias[None, :, None, None].expand_as(found))


def test_a_nearly_flat_picture_is_normalised_exactly(kernel: NormKernel) -> None:
    x, _, weight, bias = make(1, 64, 40, 40, groups=8)
    x = (100 + 2 * (x > 0)).bfloat16().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        kernel(x, weight, bias, 8, 1e-5).double(), exactly(x, None, weight, bias, 8), atol=1e-4, rtol=2**-8 + 1e-4
    )


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1e4, 1e15])
def test_numbers_of_any_size_are_normalised(kernel: NormKernel, size: float) -> None:
    x, _, weight, bias = make(1, 64, 12, 12, groups=8)
    x = (x.float() * size).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = silu(exactly(x, None, weight, bias, 8))
    found = kernel(x, weight, bias, 8, 1e-5, activate=True)
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=2**-8 + 1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("activate", [False, True])
def test_what_is_no_number_makes_its_group_none_and_no_other(kernel: NormKernel, bad: float, activate: bool) -> None:
    x, _, weight, bias = make(2, 64, 10, 10, groups=8)
    clean = kernel(x, weight, bias, 8, 1e-5, activate=activate)
    x[1, 9, 4, 3] = bad
    found = kernel(x, weight, bias, 8, 1e-5, activate=activate)
    assert found[1, 8:16].isnan().all()
    found[1, 8:16] = clean[1, 8:16]
    assert torch.equal(found, clean)


def test_silu_of_far_away_numbers_is_the_number_or_nothing(kernel: NormKernel) -> None:
    x, _, _, _ = make(1, 8, 4, 4)
    weight, bias = torch.zeros(8).bfloat16(), torch.tensor([-1e20, -1e4, -90, -20, 0, 20, 90, 1e20]).bfloat16()
    found = kernel(x, weight, bias, 1, 1e-5, activate=True)[0, :, 0, 0]
    torch.testing.assert_close(found, torch.where(bias > 0, bias, 0), atol=1e-6, rtol=2**-8)


def test_only_what_the_kernel_reads_fits() -> None:
    half, weight = torch.zeros(1, 2, 3, 3).bfloat16(), torch.zeros(2).bfloat16()
    assert fits(half, weight)
    assert not fits(half.float(), weight)
    assert not fits(half, weight.float())
    assert not fits(half[0], weight)
    assert not fits(half.to("meta"), weight)
    assert not fits(half, weight[:1])
    assert not fits(half[..., :0], weight)


def test_without_a_compiler_there_is_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_norm_kernel(tmp_path / "kernels") is None


def test_a_kernel_that_finds_something_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_norm_kernel(tmp_path) is None:
        pytest.skip("no AVX2 or no C compiler here")
    monkeypatch.setattr("darkroom.nets.native_norms._is_right", lambda _: False)
    assert find_norm_kernel(tmp_path) is None
