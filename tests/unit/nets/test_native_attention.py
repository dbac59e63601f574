"""The kernel that is compiled here finds what torch finds; where it cannot be compiled there is none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from darkroom.nets.native_attention import Kernel, find_kernel, fits


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    found = find_kernel(tmp_path_factory.mktemp("kernels"))
    if found is None:
        pytest.skip("no AMX or no C compiler here")
    return found


def make(batch: int, counts: tuple[int, int], channels: int, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(batch + sum(counts))
    rows = (counts[0], counts[1], counts[1])
    query, key, value = (size * torch.randn(batch, count, channels, generator=numbers) for count in rows)
    return query.bfloat16(), key.bfloat16(), value.bfloat16()


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """The same by torch, in the format of its arguments."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "width"),
    [
        (1, 1, 1, 1, 2),
        (2, 5, 7, 2, 8),
        (2, 64, 77, 8, 40),
        (1, 33, 256, 3, 64),
        (2, 70, 257, 2, 80),
        (1, 40, 600, 2, 160),
        (1, 31, 33, 2, 34),
        (2, 65, 97, 1, 110),
        (1, 32, 129, 1, 256),
    ],
)
def test_the_kernel_is_as_near_to_the_truth_as_torch_is(
    kernel: Kernel, batch: int, queries: int, keys: int, heads: int, width: int
) -> None:
    query, key, value = make(batch, (queries, keys), heads * width)
    exact = attended(query.float(), key.float(), value.float(), heads)
    ours, theirs = kernel(query, key, value, heads), attended(query, key, value, heads)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert (ours - exact).abs().mean() <= 1.05 * (theirs - exact).abs().mean() + 1e-4


@pytest.mark.parametrize("size", [0.0, 1e-3, 10.0, 100.0])
def test_scores_of_any_size_are_weighed(kernel: Kernel, size: float) -> None:
    query, key, value = make(1, (33, 300), 64, size)
    exact = attended(query.float(), key.float(), value.float(), 1)
    torch.testing.assert_close(kernel(query, key, value, 1).float(), exact, atol=0.01 * max(size, 1e-3), rtol=0.02)


def test_a_long_key_that_nobody_looks_at_takes_nothing_away(kernel: Kernel) -> None:
    """What is taken off all scores goes by the longest key; here that is far more than the largest score."""
    query, key, value = make(1, (40, 90), 80)
    query, key = query.abs(), key.clone()
    key[0, 3] = -3000.0
    exact = attended(query.float(), key.float(), value.float(), 2)
    torch.testing.assert_close(kernel(query, key, value, 2).float(), exact, atol=0.01, rtol=0.02)


def test_what_is_no_number_stays_in_its_row(kernel: Kernel) -> None:
    query, key, value = make(2, (40, 90), 80)
    expected = kernel(query, key, value, 2)
    query[0, 5] = torch.nan
    found = kernel(query, key, value, 2)
    assert found[0, 5].isnan().all()
    found[0, 5] = expected[0, 5]
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.02)


def test_no_row_depends_on_its_company_nor_on_the_number_of_threads(kernel: Kernel) -> None:
    query, key, value = make(3, (50, 90), 80)
    together = kernel(query, key, value, 2)
    assert torch.equal(kernel(query[1:2], key[1:2], value[1:2], 2), together[1:2])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(kernel(query, key, value, 2), together)
    finally:
        torch.set_num_threads(threads)


def test_torchs_own_kernels_work_after_ours(kernel: Kernel) -> None:
    tensors = make(2, (64, 77), 80)
    weight = torch.randn(80, 80, generator=torch.Generator().manual_seed(0)).bfloat16()
    before = tensors[0] @ weight
    kernel(*tensors, 2)
    assert torch.equal(tensors[0] @ weight, before)


def test_parts_of_larger_tensors_are_taken(kernel: Kernel) -> None:
    whole = torch.randn(2, 48, 3 * 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    query, key, value = whole.chunk(3, dim=2)
    assert torch.equal(kernel(query, key, value, 2), kernel(query.clone(), key.contiguous(), value.contiguous(), 2))


def test_only_what_the_kernel_has_room_for_fits() -> None:
    assert fits(torch.zeros(1, 1, 80).bfloat16(), 2)
    assert not fits(torch.zeros(1, 1, 80), 2)
    assert not fits(torch.zeros(1, 1, 6).bfloat16(), 2)
    assert not fits(torch.zeros(1, 1, 1024).bfloat16(), 2)


def test_a_kernel_that_lies_in_the_folder_is_not_compiled_again(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_kernel(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert find_kernel(tmp_path) is not None


def test_without_a_compiler_or_with_a_broken_one_there_is_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_kernel(tmp_path / "kernels") is None
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    assert find_kernel(tmp_path / "kernels") is None
    assert list(tmp_path.rglob("*.so")) == []
