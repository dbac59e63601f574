"""Pictures that tile and merged tokens, on tiny networks and on plain tensors."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from darkroom.errors import BadModelFile, NotANumberError
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import Store, load
from darkroom.nets.vae import Vae, VaeUse, load_vae
from darkroom.nets.variants import match, tiled
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
    return load(path, path.with_suffix(".yaml"), CPU, torch.float32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def denoise(network: Network, x: Tensor) -> Tensor:
    context = noise(1, 77, network.text_width).expand(len(x), -1, -1)
    return network.denoise(x, torch.full((len(x),), 500.0), context)


def test_a_tiled_network_does_not_see_where_the_picture_begins(network: Network) -> None:
    x = noise(1, 4, 16, 16)
    moved = x.roll((4, 8), (2, 3))
    network.variant = Variant(tiling=True, vae_use=VaeUse(tiling=True))
    torch.testing.assert_close(denoise(network, moved), denoise(network, x).roll((4, 8), (2, 3)))
    torch.testing.assert_close(network.decode(moved), network.decode(x).roll((32, 64), (2, 3)), atol=1e-4, rtol=1e-3)
    network.variant = Variant()
    plain = denoise(network, moved)
    assert not torch.allclose(plain, denoise(network, x).roll((4, 8), (2, 3)), atol=1e-3)


def test_tiling_ends_with_its_call_even_if_that_fails() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with pytest.raises(RuntimeError), tiled(layer):
        layer(torch.zeros(3))
    assert layer.padding_mode == "zeros"


@given(st.integers(2, 7), st.integers(2, 7), st.integers(1, 60), st.integers(0, 5))
def test_tokens_that_are_not_merged_come_back_as_they_were(height: int, width: int, count: int, seed: int) -> None:
    x = noise(2, height * width, 4, seed=seed)
    matching = match(x, (height, width), count)
    merged = min(count, len(matching.sources))
    joined = matching.join(x)
    assert joined.shape[1] == height * width - merged
    back = matching.part(joined)
    assert (back != x).any(dim=2).sum(dim=1).le(2 * merged).all(), "a merged token changes itself and its destination"
    torch.testing.assert_close(back.sum(dim=1).shape, x.sum(dim=1).shape)


def test_equal_tokens_are_merged_without_a_change() -> None:
    x = noise(1, 1, 4).expand(1, 16, 4)
    matching = match(x, (4, 4), 12)
    torch.testing.assert_close(matching.part(matching.join(x)), x)


def test_the_most_alike_are_merged_first_into_the_first_of_a_cell() -> None:
    x = torch.eye(16).repeat(1, 1, 1)
    x[0, 5] = x[0, 10] * 2 + x[0, 7] * 0.1  # source 5 resembles destination 10, whatever its length
    matching = match(x, (4, 4), 1)
    assert matching.destinations.tolist() == [0, 2, 8, 10]
    assert matching.sources[matching.source[0, 0, 0]] == 5
    assert matching.destinations[matching.into[0, 0, 0]] == 10
    joined = matching.part(matching.join(x))
    torch.testing.assert_close(joined[0, 5], (x[0, 5] + x[0, 10]) / 2)
    torch.testing.assert_close(joined[0, 10], joined[0, 5])


def test_merged_tokens_change_a_picture_a_little_and_leave_nothing_behind(network: Network) -> None:
    x = noise(3, 4, 8, 8)
    network.variant = Variant()
    plain = denoise(network, x)
    network.variant = Variant(token_merging=0.5)
    merged = denoise(network, x)
    torch.testing.assert_close(denoise(network, x[1:2]), merged[1:2])
    network.variant = Variant()
    assert torch.equal(denoise(network, x), plain)
    change = (merged - plain).norm() / plain.norm()
    assert 0 < change < 0.5


def test_another_autoencoder_decodes_and_encodes_while_it_is_chosen(network: Network, tmp_path: Path) -> None:
    other = Store(CPU, torch.float32, 1 << 30).get_vae(str(write_tiny_vae(tmp_path / "v.safetensors", seed=9)), 0.18215)
    x, picture = noise(1, 4, 8, 8), noise(1, 3, 64, 64).clamp(-1, 1)
    network.variant = Variant()
    own = network.decode(x), network.encode_image(picture)
    network.variant = Variant(vae=other)
    assert not torch.allclose(network.decode(x), own[0])
    assert not torch.allclose(network.encode_image(picture), own[1])
    network.variant = Variant()
    assert torch.equal(network.decode(x), own[0])


def test_a_file_that_is_no_autoencoder_is_refused_by_name(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, "whole")
    with pytest.raises(BadModelFile, match=r"whole\.safetensors"):
        Store(CPU, torch.float32, 1 << 30).get_vae(str(path), 0.18215)


@pytest.mark.parametrize(("fallback", "last"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_an_autoencoder_that_overflows_goes_on_in_another_format(
    tmp_path: Path, fallback: str, last: torch.dtype
) -> None:
    vae = overflowing(tmp_path)
    network = Variant(vae_use=VaeUse(fallback=fallback))  # type: ignore[arg-type]
    picture = vae.decode(noise(1, 4, 4, 4), network.vae_use)
    assert picture.isfinite().all()
    assert vae.module.dtype == last


def test_without_a_fallback_it_is_an_error_or_a_picture_of_no_numbers(tmp_path: Path) -> None:
    vae = overflowing(tmp_path)
    with pytest.raises(NotANumberError, match="autoencoder"):
        vae.decode(noise(1, 4, 4, 4), VaeUse(fallback="none"))
    assert vae.decode(noise(1, 4, 4, 4), VaeUse(fallback="none", check=False)).isnan().any()


def overflowing(folder: Path) -> Vae:
    """In half precision its numbers become too large."""
    vae = load_vae(write_tiny_vae(folder / "v.safetensors"), 0.18215, CPU, torch.float16)
    vae.module.post_quant_conv.weight.mul_(60_000)
    return vae


def test_a_latent_that_is_no_number_is_the_unets_fault(network: Network) -> None:
    latent = torch.full((1, 4, 8, 8), torch.nan)
    network.variant = Variant()
    with pytest.raises(NotANumberError, match="UNet"):
        network.decode(latent)
    network.variant = Variant(check=False, vae_use=VaeUse(check=False))
    assert network.decode(latent).isnan().all()
    network.variant = Variant()
