"""Memory for all weights of a network at once, which is given back as a whole when the network goes.

Weights that come and go one by one leave memory in ever smaller pieces, which fit the next network badly. Main memory
only: devices have allocators of their own for this.
"""

import math
import mmap
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MAPPED_FROM = 1 << 20
"""Bytes from which on memory comes from the kernel directly."""

_ALIGNMENT = 64
"""Bytes to a multiple of which weights are laid out."""


def rooms(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> Iterator[Tensor]:
    """Room for tensors of these shapes, convolutions channels-last, side by side in one block. Not initialised."""
    sizes = [math.prod(shape) for shape in shapes]
    unit = max(1, _ALIGNMENT // dtype.itemsize)
    padded = [-(-size // unit) * unit for size in sizes]
    if not padded:
        return
    pieces = torch.split(_block(sum(padded), dtype), padded)
    for piece, size, shape in zip(pieces, sizes, shapes, strict=True):
        flat = piece[:size]
        if len(shape) == 4:
            outputs, inputs, height, width = shape
            yield flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        else:
            yield flat.view(shape)


def _block(count: int, dtype: torch.dtype) -> Tensor:
    """Memory for so many numbers; unmapped once no tensor lies in it any more."""
    nbytes = count * dtype.itemsize
    if nbytes < MAPPED_FROM or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.empty(count, dtype=dtype)
    block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)  # a page of two megabytes comes as quickly as one of four kilobytes
    return torch.frombuffer(block, dtype=dtype)
