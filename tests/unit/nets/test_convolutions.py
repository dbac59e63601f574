import pytest
import torch
from torch import nn

from darkroom.nets.convolutions import NarrowConv2d, steady_convolutions


@pytest.mark.parametrize("height", [1, 9, 16, 64])
@pytest.mark.parametrize(("width", "padding"), [(1, 1), (2, 1), (3, 0), (4, 0), (5, 0), (3, 1)])
def test_a_narrow_picture_in_half_precision_is_convolved_as_in_single(height: int, width: int, padding: int) -> None:
    torch.manual_seed(0)
    halving = NarrowConv2d(64, 64, 3, stride=2, padding=padding).to(torch.bfloat16)
    x = torch.randn(2, 64, max(height, 3 - 2 * padding), width).to(torch.bfloat16)
    with torch.inference_mode():
        answer = halving(x)
        expected = halving.float()(x.float())
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.float(), expected, atol=0.05, rtol=0.02)


def test_only_halving_convolutions_are_replaced_and_keep_their_shape() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1))
    steady_convolutions(network)
    assert [type(part) for part in network] == [nn.Conv2d, NarrowConv2d]
    assert network(torch.zeros(1, 4, 6, 2)).shape == (1, 8, 3, 1)
