"""Attention by a kernel of our own, for processors with AMX: `native/attention.c`.

Where there is no compiler, another processor or another system, there is no kernel, and torch's own does the work.
"""

import ctypes
import math
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from darkroom.nets.native_library import find, load

Kernel = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Softmax attention `[B, N, C]` of queries `[B, N, C]` to keys and values `[B, M, C]` in bf16, heads side by side."""

FLAGS = (
    "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mfma",
)  # fmt: skip

LARGEST_HEAD = 256
"""Numbers per head that the kernel has room for."""


def fits(query: Tensor, heads: int) -> bool:
    """Whether the kernel takes queries `[B, N, C]` of so many heads."""
    return query.dtype == torch.bfloat16 and fits_head(query.shape[2] // heads)


def fits_head(width: int) -> bool:
    """Whether the kernel takes heads of so many numbers."""
    return width % 2 == 0 and width <= LARGEST_HEAD


def find_kernel(folder: Path) -> Kernel | None:
    """The kernel, compiled into a folder unless it lies there; None, and a line in the log, where that cannot be."""
    return find("attention is computed", lambda: _make(folder)) if has_tiles() else None


def _make(folder: Path) -> Kernel:
    kernel = _bound(load("attention", FLAGS, folder))
    if kernel is None or not _is_right(kernel):
        raise ArithmeticError("the kernel does not find what torch finds")
    return kernel


def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bf16, and the system lets programs ask for it."""
    has = torch.cpu.get_capabilities()
    return platform.system() == "Linux" and bool(has.get("amx_bf16")) and bool(has.get("avx512_bf16"))


def _bound(library: ctypes.CDLL) -> Kernel | None:
    """The library as a function; None where the system does not let this process use the tiles."""
    library.ask_for_tiles.restype = library.scratch_bytes.restype = ctypes.c_long
    library.scratch_bytes.argtypes = [ctypes.c_long] * 4
    library.attend.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 5 + [ctypes.c_float]
    library.attend.restype = None
    if library.ask_for_tiles() != 0:
        return None

    def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        batch, count, channels = query.shape
        sizes = batch, heads, count, key.shape[1], channels // heads
        scratch = torch.empty(library.scratch_bytes(batch, heads, *sizes[3:]), dtype=torch.uint8)
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        found = torch.empty_like(query)
        tensors = (query, key, value, found, scratch)
        library.attend(*(one.data_ptr() for one in tensors), *sizes, math.log2(math.e) / math.sqrt(sizes[-1]))
        return found

    return attend


def _is_right(kernel: Kernel) -> bool:
    """Whether the kernel finds what torch finds, on small examples whose sizes fit nothing."""
    numbers = torch.Generator().manual_seed(0)
    for width in (40, 64, 144):  # the values' columns are added in threes, with none, two and one left over
        query, key, value = (torch.randn(2, count, 2 * width, generator=numbers).bfloat16() for count in (37, 300, 300))
        key[0, 3] = -1000.0 * query[0, 5]  # so long that the scores of many are far below the bound that is taken off
        q, k, v = (one.float().view(2, -1, 2, width).transpose(1, 2) for one in (query, key, value))
        expected = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if not torch.allclose(kernel(query, key, value, 2).float(), expected, atol=0.01, rtol=0.02):
            return False
    return True
