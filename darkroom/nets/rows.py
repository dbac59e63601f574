"""UNets whose rows know nothing of each other: the bytes of a row's answer are the same in any company.

Our own kernels compute every row by itself. A library chooses its kernels by the size of the whole batch, and where it
splits a tensor among threads, by its size, other code computes the last few numbers of each part: what is left to a
library is computed row by row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.nets.attention import QuickAttention, QuickBlock, QuickGeglu, QuickTransformer
from darkroom.nets.convolutions import NarrowConv2d
from darkroom.nets.libraries import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    Downsample2D,
    FeedForward,
    TimestepEmbedding,
    Timesteps,
    UNet2DConditionModel,
    UNetMidBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from darkroom.nets.native_attention import fits_head
from darkroom.nets.norms import KernelGroupNorm
from darkroom.nets.packing import PackedConv2d, PackedLinear
from darkroom.nets.residual import QuickResnet
from darkroom.nets.upsampling import CroppedUpsample

_SMALL = 1 << 18
"""Rows of fewer numbers are computed by one thread: to wake another one takes longer than what it would do."""


class _RowByRow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Compute the rows of `[B, ...]` one after the other."""
        with _threads(1 if x[0].numel() < _SMALL else torch.get_num_threads()):
            return torch.cat([super(_RowByRow, self).forward(row) for row in torch.split(x, 1)])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _SiluByRow(_RowByRow, nn.SiLU):
    pass


class _TimestepsByRow(_RowByRow, Timesteps):  # type: ignore[misc]  # diffusers has no types
    def forward(self, timesteps: Tensor) -> Tensor:
        """Embeddings `[B, C]` of time steps `[B]`, of which many are the same."""
        different, places = torch.unique(timesteps, return_inverse=True)
        return super().forward(different)[places]


class _ConvByRow(_RowByRow, PackedConv2d):
    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        answer: Tensor = self(x)
        return answer + other


class _NarrowConvByRow(_ConvByRow, NarrowConv2d):
    pass


_BY_ROW: dict[Any, Any] = {
    nn.SiLU: _SiluByRow,
    Timesteps: _TimestepsByRow,
    PackedConv2d: _ConvByRow,
    NarrowConv2d: _NarrowConvByRow,
}

# What adds, joins and copies, which is the same for every number wherever it stands; and layer normalisation, of which
# torch computes every row of numbers by itself.
_PLAIN = frozenset({
    UNet2DConditionModel, DownBlock2D, CrossAttnDownBlock2D, UNetMidBlock2D, UNetMidBlock2DCrossAttn, UpBlock2D,
    CrossAttnUpBlock2D, Downsample2D, CroppedUpsample, QuickResnet, QuickTransformer, QuickBlock, FeedForward,
    TimestepEmbedding, nn.ModuleList, nn.Dropout, nn.Identity, nn.LayerNorm,
})  # fmt: skip


def part_rows(unet: nn.Module) -> bool:
    """Have every row of a UNet's answers computed apart from now on.

    Says whether that can be: False, and nothing is changed, where our own kernels do not do most of it.
    """
    modules = list(unet.modules())
    if not all(_is_apart(module) or type(module) in _BY_ROW for module in modules):
        return False
    for module in modules:
        if not _is_apart(module):
            module.__class__ = _BY_ROW[type(module)]
    return True


def _is_apart(module: nn.Module) -> bool:
    """Whether a module computes every row by itself, but for those in it."""
    match module:
        case _RowByRow():
            return True
        case PackedLinear() | PackedConv2d():
            return module.is_ours
        case KernelGroupNorm():
            return module.kernel is not None
        case QuickAttention():
            return module.kernel is not None and fits_head(module.inner_dim // module.heads)
        case QuickGeglu():
            return isinstance(module.proj, PackedLinear) and module.proj.gates_by_kernel
    return type(module) in _PLAIN
