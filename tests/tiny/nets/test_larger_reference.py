"""The networks of Stable Diffusion 2 and XL against what the original program computed from the same weights, in
float32.

The recordings lie in `../shared/reference`, and their weights are rebuilt; without them these tests are skipped.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.nets.network import Network
from darkroom.nets.store import load
from darkroom.nets.text import Asked, Emphasis, Encoded, Text
from darkroom.nets.tokenizer import BOS, EOS
from tests.recordings import RECORDED_LARGE

CPU = torch.device("cpu")
SIZES = (128.0, 128.0, 0.0, 0.0, 128.0, 128.0)
NEGATIVE, SOFA = [("blurry, lowres", 1.0)], [("a cat on a red sofa", 1.0)]
LOUD = [("blurry", 1.5), (",", 1.0), ("lowres", 1 / 1.1)]

Segments = list[tuple[str, float]]
Find = Callable[[str], Network]


@pytest.fixture(scope="module")
def find(larger_checkpoints: Path) -> Find:
    def load_one(name: str) -> Network:
        path = larger_checkpoints / f"{name}.safetensors"
        return load(path, path.with_suffix(".yaml"), CPU, torch.float32)

    return cache(load_one)


def recorded(case: str, name: str) -> Tensor:
    with np.load(RECORDED_LARGE / f"latents/{case}.npz") as arrays:
        return torch.from_numpy(arrays[name])


def encode(
    network: Network,
    segments: Segments,
    numbers: tuple[float, ...] = (),
    *,
    emphasis: Emphasis = "Original",
    clip_skip: int = 1,
    l_skip: bool = False,
    all_empty: bool = False,
) -> Encoded:
    pairs = [(token, weight) for text, weight in segments for token in network.tokenize(text)]
    rest = 76 - len(pairs)
    ids, weights = [BOS, *(token for token, _ in pairs), *[EOS] * rest], [1.0, *(w for _, w in pairs), *[1.0] * rest]
    asked = Asked(clip_skip=clip_skip, emphasis=emphasis, numbers=numbers, all_empty=all_empty, sdxl_clip_l_skip=l_skip)
    return network.encode_text([Text(chunks=[ids], weights=[weights])], asked)


def assert_close(answer: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    assert answer.shape == expected.shape
    assert float((answer - expected).abs().max()) < tolerance


@pytest.mark.parametrize(
    ("model", "case", "number", "segments", "numbers"),
    [
        ("small-sd2v", "v2_basic", 0, NEGATIVE, ()),
        ("small-sd2v", "v2_basic", 1, SOFA, ()),
        ("small-sdxl", "xl_basic", 0, NEGATIVE, SIZES),
        ("small-sdxl", "xl_basic", 1, SOFA, SIZES),
        ("small-sdxl", "xl_prompt_emphasis_negative", 0, LOUD, SIZES),
        ("small-sdxl-refiner", "xr_alone", 0, NEGATIVE, (128.0, 128.0, 0.0, 0.0, 2.5)),
        ("small-sdxl-refiner", "xr_alone", 1, SOFA, (128.0, 128.0, 0.0, 0.0, 6.0)),
    ],
)
def test_conditioning_is_the_original_s(
    find: Find, model: str, case: str, number: int, segments: Segments, numbers: tuple[float, ...]
) -> None:
    encoded = encode(find(model), segments, numbers)
    assert_close(encoded.context, recorded(case, f"cond_00{number}"))
    assert (encoded.vector is None) == (model == "small-sd2v")
    if encoded.vector is not None:
        assert_close(encoded.vector, recorded(case, f"vector_00{number}"))


def test_crops_are_told_top_before_left(find: Find) -> None:
    vector = encode(find("small-sdxl"), SOFA, (128.0, 128.0, 96.0, 32.0, 128.0, 128.0)).vector
    assert vector is not None
    assert_close(vector, recorded("xl_crop_both", "vector_001"))


def test_clip_skip_counts_from_the_very_last_layer_of_the_first_encoder_where_it_is_asked_to(find: Find) -> None:
    network = find("small-sdxl")
    skipping = [encode(network, SOFA, SIZES, clip_skip=n, l_skip=True).context for n in (1, 2)]
    assert_close(skipping[0], recorded("xl_clip_l_skip_1", "cond_001"))
    assert torch.equal(skipping[1], encode(network, SOFA, SIZES).context)


@pytest.mark.parametrize("model", ["small-sd2v", "small-sdxl", "small-sdxl-refiner"])
def test_clip_skip_has_no_effect_of_itself(find: Find, model: str) -> None:
    once, twice = (encode(find(model), SOFA, SIZES[:5], clip_skip=n).context for n in (1, 2))
    assert torch.equal(once, twice)


@pytest.mark.parametrize("model", ["small-sdxl", "small-sdxl-refiner"])
def test_empty_negative_texts_are_zeros_but_for_the_numbers(find: Find, model: str) -> None:
    empty = encode(find(model), [("", 1.0)], SIZES, all_empty=True)
    other = encode(find(model), [("", 1.0)], SIZES)
    assert empty.vector is not None
    assert other.vector is not None
    assert not empty.context.any()
    assert not empty.vector[:, :320].any()
    assert torch.equal(empty.vector[:, 320:], other.vector[:, 320:])
    assert other.context.any()


def test_an_empty_negative_text_is_encoded_like_any_other_by_the_second_family(find: Find) -> None:
    network = find("small-sd2v")
    assert torch.equal(encode(network, [("", 1.0)], all_empty=True).context, encode(network, [("", 1.0)]).context)


@pytest.mark.parametrize(
    ("model", "case", "step"), [("small-sdxl", "xl_basic", 2), ("small-sdxl-refiner", "xr_alone", 2)]
)
def test_the_denoised_estimate_is_the_original_s(find: Find, model: str, case: str, step: int) -> None:
    network = find(model)
    x, sigma = recorded(case, f"x_00{step}"), float(recorded(case, f"sigma_00{step}"))
    context = torch.cat([recorded(case, f"cond_00{n}") for n in (1, 0)])
    vector = torch.cat([recorded(case, f"vector_00{n}") for n in (1, 0)])
    noise = network.denoise(
        torch.cat([x, x]) / (sigma**2 + 1) ** 0.5, torch.tensor([timestep(network, sigma)] * 2), context, vector
    )
    positive, negative = (x - sigma * noise).chunk(2)
    expected = recorded(case, f"denoised_00{step}")
    assert_close(negative + 7 * (positive - negative), expected, 3e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("model", "case"), [("small-sd2v", "v2_basic"), ("small-sdxl-v", "xv_basic")])
def test_v_is_read_as_the_original_reads_it(find: Find, model: str, case: str) -> None:
    network = find(model)
    assert network.prediction == "v"
    x, sigma = recorded(case, "x_002"), float(recorded(case, "sigma_002"))
    context = torch.cat([recorded(case, f"cond_00{n}") for n in (1, 0)])
    vector = torch.cat([recorded(case, f"vector_00{n}") for n in (1, 0)]) if model == "small-sdxl-v" else None
    seen = torch.cat([x, x]) / (sigma**2 + 1) ** 0.5
    v = network.denoise(seen, torch.tensor([timestep(network, sigma)] * 2), context, vector)
    positive, negative = (x / (sigma**2 + 1) - v * sigma / (sigma**2 + 1) ** 0.5).chunk(2)
    expected = recorded(case, "denoised_002")
    assert_close(negative + 7 * (positive - negative), expected, 3e-5 * float(expected.abs().max()))


def timestep(network: Network, sigma: float) -> float:
    """The fractional timestep of a noise level, by interpolation in log sigma."""
    start, end = network.linear_start**0.5, network.linear_end**0.5
    alphas = torch.cumprod(1 - torch.linspace(start, end, network.timesteps, dtype=torch.float64) ** 2, 0)
    logs = (((1 - alphas) / alphas) ** 0.5).log().numpy()
    return float(np.interp(np.log(sigma), logs, np.arange(network.timesteps)))


def test_the_decoded_picture_is_the_original_s(find: Find) -> None:
    assert_close(find("small-sdxl").decode(recorded("xl_basic", "latent_000")), recorded("xl_basic", "decoded_000"))
