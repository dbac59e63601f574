"""Group normalisation of flat pictures."""

import torch
from torch import nn
from torch.nn.functional import group_norm

from darkroom.nets.norms import SteadyGroupNorm, steady_group_norms


def test_a_nearly_flat_picture_is_normalised_exactly() -> None:
    noise = torch.randn(1, 32, 48, 48, generator=torch.Generator().manual_seed(0))
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
