"""Group normalisation that is quick on a processor in half precision, or exact for flat pictures.

Knows nothing of the networks it stands in.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from darkroom.nets.native_norms import NormKernel, fits

# From this many pixels on torch's channels-last kernel works along the pixels, and is quick.
_MANY_PIXELS = 1024


class KernelGroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018, arXiv:1803.08494) of `[B, C, ...]` tensors, by `kernel` if it has one that
    takes them. With `activates`, SiLU is a part of it.
    """

    kernel: NormKernel | None = None
    activates = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; the answer has the type of `x`."""
        if self.kernel is not None and fits(x, self.weight):
            return self.kernel(x, self.weight, self.bias, self.num_groups, self.eps, activate=self.activates)
        normalised = self.by_torch(x)
        return functional.silu(normalised, inplace=not torch.is_grad_enabled()) if self.activates else normalised

    def by_torch(self, x: Tensor) -> Tensor:
        """Normalise alone."""
        return super().forward(x)


class QuickGroupNorm(KernelGroupNorm):
    """Group normalisation for networks in half precision.

    torch's kernel for small half-precision pictures in channels-last order took half the time of a whole UNet
    (torch 2.13, AMX); its float32 kernel with both conversions takes a quarter of that.
    """

    def by_torch(self, x: Tensor) -> Tensor:
        """Normalise alone; the answer has the type of `x`."""
        if x.dtype == torch.float32 or x.device.type != "cpu" or x.shape[2:].numel() >= _MANY_PIXELS:
            return super().by_torch(x)
        weight, bias = self.weight.float(), self.bias.float()
        return functional.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


class SteadyGroupNorm(KernelGroupNorm):
    """Group normalisation that is exact for pictures of one colour too.

    On a processor torch takes the variance in channels-last order for a mean of squares less a squared mean, of which
    nothing is left where all values are nearly equal (torch 2.13); in the plain order it does not, and neither does
    our own kernel.
    """

    def by_torch(self, x: Tensor) -> Tensor:
        """Normalise alone; the answer has the type of `x`, in plain order."""
        return super().by_torch(x.contiguous())


def normalise_and_activate(norm: nn.Module, x: Tensor, added: Tensor | None = None, *, over: bool = False) -> Tensor:
    """SiLU of the normalised sum of a picture `[B, C, H, W]` and what is added to all its pixels, `[B, C]`.

    With `over` the picture is not needed any more. For inference alone.
    """
    if isinstance(norm, KernelGroupNorm) and norm.kernel is not None and fits(x, norm.weight):
        eps, groups = norm.eps, norm.num_groups
        return norm.kernel(x, norm.weight, norm.bias, groups, eps, added=added, activate=True, over=over)
    if added is not None:
        x = x.add_(added[:, :, None, None]) if over else x + added[:, :, None, None]
    return functional.silu(norm(x), inplace=True)


def normalise_by(network: nn.Module, kernel: NormKernel | None) -> None:
    """Have all normalisations of a network computed by a kernel, or by torch's (None)."""
    for part in network.modules():
        if isinstance(part, KernelGroupNorm):
            part.kernel = kernel


def join_activation(network: nn.Module) -> None:
    """Make the SiLU before a network's last convolution a part of the normalisation before it."""
    if isinstance(network.conv_norm_out, KernelGroupNorm) and isinstance(network.conv_act, nn.SiLU):
        network.conv_norm_out.activates = True
        network.conv_act = nn.Identity()


def steady_group_norms(network: nn.Module) -> None:
    """Put exact ones in place of all group normalisations of a network that has no weights yet."""
    _replace_group_norms(network, SteadyGroupNorm)


def quicken_group_norms(network: nn.Module) -> None:
    """Put quick ones in place of all group normalisations of a network that has no weights yet."""
    _replace_group_norms(network, QuickGroupNorm)


def _replace_group_norms(network: nn.Module, kind: type[nn.GroupNorm]) -> None:
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.GroupNorm:
                setattr(parent, name, kind(child.num_groups, child.num_channels, eps=child.eps))
