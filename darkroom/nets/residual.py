"""Residual blocks that are quick in bf16 on a processor, and diffusers' own everywhere else."""

from torch import Tensor, nn

from darkroom.nets.libraries import ResnetBlock2D
from darkroom.nets.norms import normalise_and_activate
from darkroom.nets.packing import suits


class QuickResnet(ResnetBlock2D):  # type: ignore[misc]  # diffusers has no types
    """Two normalised convolutions beside a shortcut: what can be computed in its place is, and the shortcut is added
    before the last convolution's answer is rounded.
    """

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: object, **others: object) -> Tensor:
        """A picture `[B, C, H, W]` and the embedding of its time step `[B, T]`, or None, to `[B, C', H, W]`."""
        if not suits(input_tensor):
            answer: Tensor = super().forward(input_tensor, temb, *args, **others)
            return answer
        x = self.conv1(normalise_and_activate(self.norm1, input_tensor))
        # The module and not the function, for `rows.py` may put another one in its place.
        time = None if temb is None else self.time_emb_proj(self.nonlinearity(temb))
        x = normalise_and_activate(self.norm2, x, time, over=True)
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        added: Tensor = self.conv2.plus(x, shortcut)
        return added


def quicken_resnets(network: nn.Module) -> None:
    """Make all residual blocks of a UNet or an autoencoder quick ones."""
    for block in network.modules():
        if type(block) is ResnetBlock2D:
            block.__class__ = QuickResnet
