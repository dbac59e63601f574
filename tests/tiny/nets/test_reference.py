"""Every network against what the original program computed from the same weights, in float32.

The recordings lie in `../shared/reference`, and their weights are rebuilt; without them these tests are skipped.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.nets.network import Network
from darkroom.nets.store import load
from darkroom.nets.tokenizer import BOS, EOS
from tests.tiny.encoding import encode_tokens

LATENTS = Path(__file__).parents[4] / "shared/reference/a1111-1.10.1/latents"
CPU = torch.device("cpu")
NEGATIVE = [("blurry, lowres", 1.0)]
SOFA = [("a cat on a red sofa", 1.0)]

Segments = list[tuple[str, float]]


@pytest.fixture(scope="module")
def network(recorded_checkpoint: Path) -> Network:
    return load(recorded_checkpoint, recorded_checkpoint.with_suffix(".yaml"), CPU, torch.float32)


def recorded(case: str, name: str) -> Tensor:
    with np.load(LATENTS / f"{case}.npz") as arrays:
        return torch.from_numpy(arrays[name])


def chunked(network: Network, segments: Segments) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens and weights in chunks of 77, for texts without commas."""
    pairs = [(token, weight) for text, weight in segments for token in network.tokenize(text)]
    rows = [pairs[at : at + 75] for at in range(0, max(1, len(pairs)), 75)]
    ends = [75 - len(row) for row in rows]
    ids = [[BOS, *(token for token, _ in row), *[EOS] * (end + 1)] for row, end in zip(rows, ends, strict=True)]
    weights = [[1.0, *(weight for _, weight in row), *[1.0] * (end + 1)] for row, end in zip(rows, ends, strict=True)]
    return ids, weights


def encode(network: Network, *texts: Segments, clip_skip: int = 1) -> Tensor:
    tokens, weights = zip(*(chunked(network, segments) for segments in texts), strict=True)
    return encode_tokens(network, tokens, weights, clip_skip=clip_skip)


def assert_close(answer: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert answer.shape == expected.shape
    assert float((answer - expected).abs().max()) < tolerance


@pytest.mark.parametrize(
    ("case", "name", "texts", "clip_skip"),
    [
        ("basic", "cond_000", [NEGATIVE], 1),
        ("basic", "cond_001", [SOFA], 1),
        ("clip_skip_2", "cond_000", [NEGATIVE], 2),
        ("clip_skip_2", "cond_001", [SOFA], 2),
        ("prompt_76", "cond_000", [[("cat " * 76, 1.0)]], 1),
        (
            "prompt_emphasis",
            "cond_001",
            [
                [
                    ("a ", 1.0),
                    ("cat", 1.4),
                    (" on a ", 1.0),
                    ("red", 1 / 1.1),
                    (" ", 1.0),
                    ("sofa", 1.1 * 1.1),
                    (" (literal)", 1.0),
                ]
            ],
            1,
        ),
        (
            "prompt_editing_nested",
            "cond_000",
            [[(text, 1.0)] for text in ("a red cat outside", "a blue cat outside", "a green dog outside")],
            1,
        ),
    ],
)
def test_conditioning_is_the_original_s(
    network: Network, case: str, name: str, texts: list[Segments], clip_skip: int
) -> None:
    assert_close(encode(network, *texts, clip_skip=clip_skip), recorded(case, name))


def timestep(network: Network, sigma: float) -> tuple[float, float]:
    """The fractional timestep of a noise level and its alpha-bar, by interpolation in log sigma."""
    start, end = network.linear_start**0.5, network.linear_end**0.5
    alphas = torch.cumprod(1 - torch.linspace(start, end, network.timesteps, dtype=torch.float64) ** 2, 0)
    logs = (((1 - alphas) / alphas) ** 0.5).log().numpy()
    return float(np.interp(np.log(sigma), logs, np.arange(network.timesteps))), 1 / (sigma**2 + 1)


@pytest.mark.parametrize("step", ["000", "003", "005"])
def test_the_denoised_estimate_is_the_original_s(network: Network, step: str) -> None:
    x = recorded("basic", f"x_{step}")
    sigma = float(recorded("basic", f"sigma_{step}"))
    t, alpha = timestep(network, sigma)
    context = torch.cat([encode(network, SOFA), encode(network, NEGATIVE)])
    noise = network.denoise(torch.cat([x, x]) * alpha**0.5, torch.tensor([t, t]), context)
    positive, negative = (x - sigma * noise).chunk(2)
    expected = recorded("basic", f"denoised_{step}")
    assert_close(negative + 7 * (positive - negative), expected, 3e-5 * float(expected.abs().max()))


def test_the_decoded_picture_is_the_original_s(network: Network) -> None:
    assert_close(network.decode(recorded("basic", "latent_000")), recorded("basic", "decoded_000"))


def test_half_precision_stays_near_the_original(recorded_checkpoint: Path) -> None:
    network = load(recorded_checkpoint, recorded_checkpoint.with_suffix(".yaml"), CPU, torch.bfloat16)
    decoded = network.decode(recorded("basic", "latent_000"))
    difference = (decoded - recorded("basic", "decoded_000")).abs()
    assert float(difference.mean()) < 0.01
