"""Convolutions that are right for very narrow pictures in half precision on a processor.

Knows nothing of the networks it stands in.
"""

import torch
from torch import Tensor, nn

from darkroom.nets.packing import PackedConv2d, plain

# The widest picture of which a halving convolution leaves one column.
_NARROW = 4


class NarrowConv2d(PackedConv2d):
    """A convolution of `[B, C, H, W]` that halves both sides.

    torch's bfloat16 kernel reads beyond its memory where the answer has a single column (torch 2.13, AMX), which gives
    wrong numbers or none; so narrow pictures are convolved in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the answer has the type of `x`."""
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or x.shape[-1] > _NARROW:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        answer: Tensor = self._conv_forward(x.float(), plain(self.weight).float(), bias)
        return answer.to(x.dtype)


def steady_convolutions(network: nn.Module) -> None:
    """Put right ones in place of all halving convolutions of a network that has no weights yet."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and child.stride == (2, 2):
                new = NarrowConv2d(
                    child.in_channels,
                    child.out_channels,
                    (child.kernel_size[0], child.kernel_size[1]),
                    stride=2,
                    padding=child.padding,  # type: ignore[arg-type]  # torch types it more loosely than it takes it
                    bias=child.bias is not None,
                )
                setattr(parent, name, new)
