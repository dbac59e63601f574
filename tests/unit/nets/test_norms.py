"""Group normalisation of flat pictures, by a kernel, and with the activation after it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, silu

from darkroom.nets.norms import (
    KernelGroupNorm,
    QuickGroupNorm,
    SteadyGroupNorm,
    join_activation,
    normalise_and_activate,
    normalise_by,
    quicken_group_norms,
    steady_group_norms,
)


class End(nn.Module):
    """The end of a UNet or of one side of an autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_norm_out = nn.GroupNorm(4, 16)
        self.conv_act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.conv_act(self.conv_norm_out(x))
        return activated


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_nearly_flat_picture_is_normalised_exactly() -> None:
    noise = picture(1, 32, 48, 48)
    x = (5 + 1e-3 * noise).to(memory_format=torch.channels_last)
    exact = group_norm(x.double(), 32, eps=1e-6)
    norm = SteadyGroupNorm(32, 32, eps=1e-6)
    assert torch.allclose(norm(x).double(), exact, atol=0.01)


def test_all_normalisations_of_a_network_are_replaced() -> None:
    network = nn.Sequential(nn.GroupNorm(2, 4, eps=1e-6), nn.Sequential(nn.GroupNorm(1, 4)))
    steady_group_norms(network)
    found = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert [type(norm) for norm in found] == [SteadyGroupNorm] * 2
    assert [(norm.num_groups, norm.num_channels, norm.eps) for norm in found] == [(2, 4, 1e-6), (1, 4, 1e-5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_joined_activation_changes_nothing(dtype: torch.dtype) -> None:
    apart, joined = End(), End()
    for end in (apart, joined):
        quicken_group_norms(end)
    join_activation(joined)
    x = picture(2, 16, 6, 6).to(dtype)
    kept = x.clone()
    assert torch.equal(joined.to(dtype)(x), apart.to(dtype)(x))
    assert torch.equal(x, kept)
    assert joined.state_dict().keys() == apart.state_dict().keys()


def test_no_activation_is_joined_to_a_plain_normalisation() -> None:
    end = End()
    join_activation(end)
    assert isinstance(end.conv_act, nn.SiLU)


@pytest.mark.parametrize("over", [False, True])
@torch.inference_mode()
def test_what_is_added_is_added_before_normalising(over: bool) -> None:
    norm, x, added = QuickGroupNorm(4, 16), picture(2, 16, 6, 6), torch.arange(32.0).view(2, 16)
    expected = silu(norm(x + added[:, :, None, None]))
    kept = x.clone()
    assert torch.equal(normalise_and_activate(norm, x, added, over=over), expected)
    assert torch.equal(x, kept) is not over


@torch.inference_mode()
def test_a_kernel_is_asked_for_pictures_in_bf16_alone() -> None:
    asked = []

    def kernel(x: Tensor, *_: object, activate: bool = False, **__: object) -> Tensor:
        asked.append((x.shape, activate))
        return x

    network = nn.Sequential(QuickGroupNorm(4, 16), nn.Sequential(SteadyGroupNorm(4, 16)))
    normalise_by(network, kernel)
    network(picture(2, 16, 6, 6))
    assert asked == []
    half = network.bfloat16()
    half(picture(2, 16, 6).bfloat16())
    assert asked == []
    x = picture(2, 16, 6, 6).bfloat16()
    half(x)
    normalise_and_activate(half[0], x)
    assert asked == [(x.shape, False), (x.shape, False), (x.shape, True)]
    normalise_by(network, None)
    assert all(part.kernel is None for part in network.modules() if isinstance(part, KernelGroupNorm))
