"""What a loaded network answers: shapes, independence of the batch, emphasis, precision."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from darkroom.nets.kernels import Kernels, find_kernels
from darkroom.nets.network import Network, Variant
from darkroom.nets.norms import QuickGroupNorm
from darkroom.nets.store import load
from darkroom.nets.text import Emphasis, emphasise
from darkroom.nets.tokenizer import BOS, EOS
from darkroom.nets.vae import Vae
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.encoding import encode_tokens

CPU = torch.device("cpu")
PLAIN = [[1.0] * 77]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def network(path: Path) -> Network:
    return load(path, path.with_suffix(".yaml"), CPU, torch.float32)


@pytest.fixture(scope="module")
def half(path: Path) -> Network:
    return load(path, path.with_suffix(".yaml"), CPU, torch.bfloat16)


def chunk(network: Network, text: str) -> list[int]:
    ids = network.tokenize(text)
    return [BOS, *ids, *[EOS] * (76 - len(ids))]


def encode(network: Network, *texts: str, clip_skip: int = 1) -> Tensor:
    return encode_tokens(network, [[chunk(network, text)] for text in texts], [PLAIN] * len(texts), clip_skip=clip_skip)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (5, 7), (1, 2), (16, 3)])
def test_any_latent_size_is_denoised_and_decoded(network: Network, height: int, width: int) -> None:
    x = noise(2, 4, height, width)
    assert network.denoise(x, torch.tensor([1.0, 999.0]), encode(network, "a", "b")).shape == x.shape
    pictures = network.decode(x)
    assert pictures.shape == (2, 3, 8 * height, 8 * width)
    assert network.encode_image(pictures.clamp(-1, 1)).shape == x.shape


def test_odd_sizes_are_cropped_after_the_convolution(network: Network) -> None:
    upsample = network._unet.up_blocks[0].upsamplers[0]
    x = noise(1, 64, 5, 7)
    doubled = functional.interpolate(x, scale_factor=2, mode="nearest")
    whole = functional.conv2d(doubled, upsample.conv.weight, upsample.conv.bias, padding=1)
    expected = functional.interpolate(whole, size=(9, 13), mode="nearest")
    with torch.inference_mode():
        assert close(upsample(x, (9, 13)), expected)


def test_rows_of_a_batch_do_not_see_each_other(network: Network) -> None:
    x, t, context = noise(3, 4, 8, 8), torch.tensor([3.0, 500.5, 998.0]), encode(network, "a", "red", "cat")
    together = network.denoise(x, t, context)
    apart = torch.cat([network.denoise(x[i : i + 1], t[i : i + 1], context[i : i + 1]) for i in range(3)])
    assert close(together, apart)
    assert close(network.decode(x), torch.cat([network.decode(row[None]) for row in x]))


def test_fractions_of_a_timestep_count_in_every_precision(network: Network, half: Network) -> None:
    x, context = noise(1, 4, 8, 8), encode(network, "a")
    for net in (network, half):
        whole, fraction = (net.denoise(x, torch.tensor([t]), context) for t in (900.0, 900.4))
        assert not torch.equal(whole, fraction)


def test_half_precision_answers_in_float32_and_nearly_the_same(network: Network, half: Network) -> None:
    x, t, context = noise(2, 4, 8, 8), torch.tensor([10.0, 900.0]), encode(network, "a cat", "a dog")
    exact, rounded = network.denoise(x, t, context), half.denoise(x, t, context)
    assert rounded.dtype == torch.float32
    assert close(exact, rounded, 0.05)
    assert close(network.decode(x), half.decode(x), 0.05)
    assert half.nbytes < network.nbytes


def test_kernels_of_our_own_answer_as_torchs_do_and_only_as_long_as_they_are_there(
    network: Network, half: Network, tmp_path: Path
) -> None:
    kernels = find_kernels(tmp_path)
    if kernels.norm is None:
        pytest.skip("no AVX2 or no C compiler here")
    x, t, context = noise(2, 4, 9, 13), torch.tensor([10.0, 900.0]), encode(network, "a cat", "a dog")
    exact, theirs = network.denoise(x, t, context), half.denoise(x, t, context)
    pictures, theirs_decoded = network.decode(x), half.decode(x)
    half.compute_by(kernels)
    ours, decoded = half.denoise(x, t, context), half.decode(x)
    half.compute_by(Kernels())
    assert not torch.equal(ours, theirs)
    assert (ours - exact).abs().mean() <= 1.05 * (theirs - exact).abs().mean()
    assert (decoded - pictures).abs().mean() <= 1.05 * (theirs_decoded - pictures).abs().mean()
    assert torch.equal(half.denoise(x, t, context), theirs)
    assert torch.equal(half.decode(x), theirs_decoded)


def test_an_autoencoder_that_stands_in_computes_by_the_kernels_too(path: Path) -> None:
    one, other = (load(path, path.with_suffix(".yaml"), CPU, torch.bfloat16) for _ in range(2))
    seen = []

    def kernel(x: Tensor, *_: object, **__: object) -> Tensor:
        seen.append(x.shape)
        return x

    one.compute_by(Kernels(norm=kernel))
    one.variant = Variant(vae=other.vae)
    one.decode(noise(1, 4, 8, 8))
    assert seen
    one.compute_by(Kernels())
    seen.clear()
    one.decode(noise(1, 4, 8, 8))
    assert not seen


def test_text_is_encoded_in_full_precision_on_a_processor(network: Network, half: Network) -> None:
    assert torch.equal(encode(network, "a cat"), encode(half, "a cat"))


def test_chunks_follow_each_other_and_short_texts_are_filled_up(network: Network) -> None:
    cat, empty = chunk(network, "cat"), chunk(network, "")
    context = encode_tokens(network, [[cat], [cat, cat]], [PLAIN, PLAIN * 2])
    assert context.shape == (2, 154, 64)
    assert close(context[0], encode_tokens(network, [[cat, empty]], [PLAIN * 2])[0])


def test_clip_skip_takes_an_earlier_layer_through_the_last_norm(network: Network) -> None:
    contexts = [encode(network, "a cat", clip_skip=skip) for skip in (1, 2, 3, 12)]
    assert not torch.equal(contexts[0], contexts[1])
    assert not torch.equal(contexts[1], contexts[2])
    assert torch.equal(contexts[2], contexts[3])  # there is nothing before the embeddings
    norm = network._text.module.get_submodule("final_layer_norm")
    assert isinstance(norm, torch.nn.LayerNorm)
    centred = (contexts[1] - norm.bias) / norm.weight
    assert close(centred.mean(-1), torch.zeros(1, 77), 1e-3)


def emphasised(values: Sequence[float], weights: Sequence[float], emphasis: Emphasis) -> list[float]:
    z = torch.tensor(values).view(1, -1, 1)
    return emphasise(z, torch.tensor(weights)[None], emphasis).flatten().tolist()


def test_each_kind_of_emphasis_has_its_arithmetic() -> None:
    values, weights = [1.0, 3.0], [1.0, 2.0]
    assert emphasised(values, weights, "None") == values
    assert emphasised(values, weights, "Ignore") == values
    assert emphasised(values, weights, "No norm") == [1.0, 6.0]
    assert emphasised(values, weights, "Original") == pytest.approx([4 / 7, 24 / 7])


def test_the_emphasis_mean_runs_over_all_texts_of_a_prompt(network: Network) -> None:
    tokens = [[chunk(network, "a")], [chunk(network, "cat")]]
    weights = [PLAIN, [[3.0] * 77]]
    together = encode_tokens(network, tokens, weights)
    assert not close(together[:1], encode_tokens(network, tokens[:1], weights[:1]))
    assert torch.allclose(together.mean(), encode_tokens(network, tokens, [PLAIN, PLAIN]).mean(), atol=1e-5)


def test_encoding_a_picture_has_no_chance_in_it(network: Network) -> None:
    picture = noise(1, 3, 64, 64).clamp(-1, 1)
    assert torch.equal(network.encode_image(picture), network.encode_image(picture))


class _Overflowing(torch.nn.Module):
    """An autoencoder that is out of range in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float16))
        self.calls = 0

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def decode(self, x: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.calls += 1
        return (x * 60000,)


def test_a_nan_makes_the_autoencoder_fall_back_to_full_precision() -> None:
    module = _Overflowing()
    vae = Vae(module, 1.0)
    expected = torch.full((1, 3, 2, 2), 120000.0)
    assert torch.equal(vae.decode(torch.full((1, 3, 2, 2), 2.0)), expected)
    assert torch.equal(vae.decode(torch.full((1, 3, 2, 2), 2.0)), expected)
    assert module.calls == 3


@pytest.mark.parametrize("pixels", [8, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_quick_group_norm_is_a_group_norm(dtype: torch.dtype, pixels: int) -> None:
    norm = QuickGroupNorm(32, 64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = noise(2, 64, pixels, pixels).to(dtype, memory_format=torch.channels_last)
    exact = functional.group_norm(x.float(), 32, norm.weight, norm.bias)
    answer = norm.to(dtype)(x)
    assert answer.dtype == dtype
    assert close(exact, answer.float(), 0.05)


def test_a_picture_does_not_depend_on_its_company(half: Network) -> None:
    latents = noise(3, 4, 8, 8)
    together = half.decode(latents)
    assert torch.equal(together[1:2], half.decode(latents[1:2]))
    assert torch.equal(half.encode_image(together)[:1], half.encode_image(together[:1]))
