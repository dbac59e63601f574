"""Numbers arrive as they were sent."""

import pytest
import torch

from darkroom.nets.transfers import fetched, sent

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_arrive_rounded_to_float32_once(device: str) -> None:
    numbers = [1 / 3, 14.6146, 1e-9]
    there = sent(numbers, torch.device(device))
    assert there.device.type == device
    assert torch.equal(there.cpu(), torch.tensor(numbers))
    assert torch.equal(sent(torch.tensor(numbers, dtype=torch.float64), torch.device(device)).cpu(), there.cpu())


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_fetched_is_there(device: str) -> None:
    x = torch.arange(1000, device=device).view(10, 100).t()
    assert torch.equal(fetched(x), torch.arange(1000).view(10, 100).t())
    assert fetched(x).device.type == "cpu"
