import pytest
import torch

from darkroom.sampling.inversion import inverted_euler
from darkroom.sampling.steps import Steps


def drive(steps: Steps, mean: float, spread: float) -> torch.Tensor:
    """Answers with the exact x0 of a Gaussian: E[x0 | x] for x0 ~ N(mean, spread^2)."""
    try:
        asked = next(steps)
        while True:
            weight = spread**2 / (spread**2 + asked.sigma**2)
            asked = steps.send(mean + weight * (asked.x - mean))
    except StopIteration as end:
        result: torch.Tensor = end.value
        return result


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_picture_comes_back_from_the_noise_that_was_found(adjusted: bool) -> None:
    clean = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    ascending = [0.0, *torch.linspace(-3.5, 2.7, 400).exp().tolist()]
    found = drive(inverted_euler(clean, ascending, adjusted=adjusted), 0.0, 1.0)
    assert found.std() == pytest.approx(1, abs=0.1)
    x = found * (ascending[-1] ** 2 + 1) ** 0.5
    for high, low in zip(reversed(ascending), list(reversed(ascending))[1:], strict=False):
        x0 = x / (1 + high**2)
        x = x + (x - x0) / high * (low - high)
    assert (x - clean).abs().max() < 0.15
