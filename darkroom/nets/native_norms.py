"""Group normalisation by a kernel of our own, for processors with AVX-512 or AVX2: `native/norms.c`.

Where there is no compiler or another processor there is no kernel, and torch's own does the work.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from darkroom.nets.native_library import find, load

_PLAIN = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-mfma")
AVX512 = (
    *_PLAIN, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mprefer-vector-width=512",
)  # fmt: skip
AVX2 = (*_PLAIN, "-mavx2")


class NormKernel(Protocol):
    """Group normalisation (Wu and He 2018, arXiv:1803.08494) in bf16."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        *,
        added: Tensor | None = None,
        activate: bool = False,
        over: bool = False,
    ) -> Tensor:
        """Of a picture `[B, C, H, W]` to which `[B, C]` may be added beforehand; with `activate` the SiLU of it. The
        answer is channels-last; with `over` it takes the place of `x` if that is.
        """


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes a picture and a norm's weights: it would read beyond weights that are too few."""
    is_right = x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu" and x.dim() == 4
    return is_right and x.shape[1] == len(weight) and x.numel() > 0


def find_norm_kernel(folder: Path) -> NormKernel | None:
    """The kernel, compiled into a folder unless it lies there; None, and a line in the log, where that cannot be."""
    flags = _flags()
    return None if flags is None else find("norms are computed", lambda: make_norm_kernel(flags, folder))


def _flags() -> Sequence[str] | None:
    has = torch.cpu.get_capabilities()
    if all(has.get(f"avx512_{part}") for part in ("f", "bw", "vl", "dq", "bf16")):
        return AVX512
    return AVX2 if has.get("avx2") and has.get("fma3") else None


def make_norm_kernel(flags: Sequence[str], folder: Path) -> NormKernel:
    """The kernel, compiled with these flags. Raises ArithmeticError if it is wrong, and `FAILURES`."""
    kernel = _bound(load("norms", flags, folder))
    if not _is_right(kernel):
        raise ArithmeticError("the kernel does not find what torch finds")
    return kernel


def _bound(library: ctypes.CDLL) -> NormKernel:
    """The library as a function."""
    library.scratch_floats.restype, library.scratch_floats.argtypes = ctypes.c_long, [ctypes.c_long] * 2
    numbers: list[Any] = [*[ctypes.c_long] * 5, ctypes.c_float, ctypes.c_int]
    library.normalise.restype, library.normalise.argtypes = None, [*[ctypes.c_void_p] * 6, *numbers]
    normalise, scratch_floats = library.normalise, library.scratch_floats

    def kernel(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        *,
        added: Tensor | None = None,
        activate: bool = False,
        over: bool = False,
    ) -> Tensor:
        batch, channels, height, width = x.shape
        threads = torch.get_num_threads()
        scratch = torch.empty(scratch_floats(channels, threads))
        x = x.contiguous(memory_format=torch.channels_last)
        added = None if added is None else added.contiguous()
        found = x if over else torch.empty_like(x)
        sizes = batch, height * width, channels, groups, threads
        parts = x, found, added, weight, bias, scratch
        normalise(*(part if part is None else part.data_ptr() for part in parts), *sizes, eps, activate)
        return found

    return kernel


def _is_right(kernel: NormKernel) -> bool:
    """Whether the kernel finds what torch finds, on a small example whose sizes fit nothing."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, 9, 7, generator=numbers).bfloat16()
    added, weight, bias = (torch.randn(*size, generator=numbers).bfloat16() for size in ((2, 30), (30,), (30,)))
    moved = x.float() + added.float()[:, :, None, None]
    expected = functional.silu(functional.group_norm(moved, 3, weight.float(), bias.float(), 1e-5))
    found = kernel(x, weight, bias, 3, 1e-5, added=added, activate=True)
    return torch.allclose(found.float(), expected, atol=1e-4, rtol=0.005)
