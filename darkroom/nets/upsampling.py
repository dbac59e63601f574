"""Layers that make a picture twice as large and convolve it: quick in bf16 on a processor, diffusers' own elsewhere."""

from torch import Tensor, nn

from darkroom.nets.libraries import Upsample2D
from darkroom.nets.packing import PackedConv2d, suits


class QuickUpsample(Upsample2D):  # type: ignore[misc]  # diffusers has no types
    """Doubles the size of a picture `[B, C, H, W]` and convolves it; a kernel of our own writes nothing in between."""

    def forward(self, hidden_states: Tensor, output_size: tuple[int, int] | None = None, *_: object) -> Tensor:
        """A picture of twice the size, or of `output_size`."""
        if output_size is None and suits(hidden_states) and isinstance(self.conv, PackedConv2d):
            return self.conv.doubled(hidden_states)
        answer: Tensor = super().forward(hidden_states, output_size)
        return answer


class CroppedUpsample(QuickUpsample):
    """Doubles the size, convolves, and only then fits the result to the skip connection it will be joined with.

    diffusers resizes before the convolution, which then sees a border of zeros where the original saw one more line.
    """

    def forward(self, hidden_states: Tensor, output_size: tuple[int, int] | None = None, *_: object) -> Tensor:
        """A picture of twice the size, of which the last row and column may be left out."""
        doubled = super().forward(hidden_states)
        return doubled if output_size is None else doubled[..., : output_size[0], : output_size[1]]


def bytes_beside(network: nn.Module) -> int:
    """What a network's quick ones hold beside its weights, once they were used: sums of 16 for each 9 of those."""
    convolutions = (part.conv for part in network.modules() if isinstance(part, QuickUpsample))
    return sum(one.weight.nbytes * 16 // 9 for one in convolutions if isinstance(one, PackedConv2d) and one.is_ours)


def quicken_upsamplers(network: nn.Module) -> None:
    """Make all of an autoencoder's quick ones."""
    for part in network.modules():
        if type(part) is Upsample2D:
            part.__class__ = QuickUpsample
