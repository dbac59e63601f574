"""Loading checkpoint files: what is accepted, and what is refused with which words."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.catalog import embedded
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.layout import Part
from darkroom.nets.network import Network
from darkroom.nets.store import load
from tests.tiny.checkpoints import tiny_weights, write_tiny_checkpoint
from tests.tiny.encoding import encode_tokens

CPU = torch.device("cpu")
TEXT = "cond_stage_model.transformer.text_model."
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return tiny_weights()


def load_weights(folder: Path, weights: Weights) -> Network:
    path = write_tiny_checkpoint(folder)
    save_file(weights, path)
    return load(path, path.with_suffix(".yaml"), CPU, torch.float32)


def same_answers(one: Network, other: Network) -> bool:
    x = torch.linspace(-1, 1, 256).view(1, 4, 8, 8)
    chunk = [[49406, 320, 2368, *[49407] * 74]]
    contexts = [encode_tokens(network, [chunk], [[[1.0] * 77]]) for network in (one, other)]
    t = torch.tensor([500.0])
    noises = [network.denoise(x, t, context) for network, context in zip((one, other), contexts, strict=True)]
    return torch.equal(*contexts) and torch.equal(*noises) and torch.equal(one.decode(x), other.decode(x))


def test_a_checkpoint_loads_with_the_numbers_of_its_yaml(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, prediction="v", scale=0.5)
    network = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    assert (network.native_size, network.prediction, network.scale) == (64, "v", 0.5)
    assert (network.linear_start, network.linear_end, network.timesteps) == (0.00085, 0.012, 1000)
    assert (network.latent_channels, network.dtype, network.device) == (4, torch.float32, CPU)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    paths = [write_tiny_checkpoint(tmp_path, name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, second, third = (path.read_bytes() for path in paths)
    assert first == second != third


def test_weights_do_not_change_with_the_file(tmp_path: Path, weights: Weights) -> None:
    network = load_weights(tmp_path, {name: weight.float() for name, weight in weights.items()})
    path = tmp_path / "tiny.safetensors"
    before = network.denoise(torch.ones(1, 4, 8, 8), torch.tensor([9.0]), torch.ones(1, 77, 64))
    with path.open("r+b") as file:
        file.seek(200_000)
        file.write(b"\xff" * 1_000_000)
    assert torch.equal(network.denoise(torch.ones(1, 4, 8, 8), torch.tensor([9.0]), torch.ones(1, 77, 64)), before)


def test_what_training_leaves_behind_is_passed_over(tmp_path: Path, weights: Weights) -> None:
    names = (
        "betas",
        "alphas_cumprod_prev",
        "sqrt_recip_alphas_cumprod",
        "posterior_variance",
        "model_ema.decay",
        "first_stage_model.loss.logvar",
        "first_stage_model.model_ema.decay",
        "cond_stage_model.logit_scale",
    )
    leftovers = {name: torch.zeros(1) for name in names}
    positions = {TEXT + "embeddings.position_ids": torch.arange(77)[None]}
    plain = load_weights(tmp_path, weights)
    assert same_answers(plain, load_weights(tmp_path, weights | leftovers | positions))


def test_files_from_before_the_text_model_had_its_own_name_load(tmp_path: Path, weights: Weights) -> None:
    old = {name.replace("transformer.text_model.", "transformer."): weight for name, weight in weights.items()}
    assert same_answers(load_weights(tmp_path, weights), load_weights(tmp_path, old))


def test_linear_projections_may_be_stored_as_convolutions(tmp_path: Path, weights: Weights) -> None:
    flat = {
        name: weight[:, :, 0, 0].contiguous() if ".attn_1." in name and weight.dim() == 4 else weight
        for name, weight in weights.items()
    }
    assert same_answers(load_weights(tmp_path, weights), load_weights(tmp_path, flat))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_of_any_float_type_load(tmp_path: Path, weights: Weights, dtype: torch.dtype) -> None:
    network = load_weights(tmp_path, {name: weight.to(dtype) for name, weight in weights.items()})
    assert network.dtype == torch.float32
    assert network.nbytes == sum(4 * weight.numel() for weight in weights.values())


def missing(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if not name.endswith("out.2.bias")}


def extra(weights: Weights) -> Weights:
    return weights | {"model.diffusion_model.surprise.weight": torch.zeros(3)}


def misfit(weights: Weights) -> Weights:
    return weights | {"model.diffusion_model.out.2.bias": torch.zeros(5)}


def integers(weights: Weights) -> Weights:
    return weights | {"model.diffusion_model.out.2.bias": torch.zeros(4, dtype=torch.int8)}


def other_input(weights: Weights) -> Weights:
    return weights | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 7, 3, 3)}


def no_text(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if not name.startswith("cond_stage_model.")}


def no_vae(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if not name.startswith("first_stage_model.")}


def unclip(weights: Weights) -> Weights:
    return no_text(weights) | {"embedder.model.ln_final.weight": torch.zeros(768)}


def lora(weights: Weights) -> Weights:
    return {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.zeros(4, 4)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing, r"1 tensors are missing: model\.diffusion_model\.out\.2\.bias"),
        (extra, r"no place .*model\.diffusion_model\.surprise\.weight"),
        (misfit, r"out\.2\.bias is \[5\], not \[4\]"),
        (integers, r"out\.2\.bias is I8"),
        (other_input, "unusual input, which is not supported"),
        (no_text, "a UNet without its text encoder"),
        (no_vae, "not laid out like Stable Diffusion 1.x"),
        (unclip, "Stable Diffusion 2 unclip, which is not supported"),
        (lora, "a LoRA"),
        (lambda _: {"x": torch.zeros(1)}, "an unknown kind of file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, weights: Weights, change: Callable[[Weights], Weights], words: str
) -> None:
    with pytest.raises(BadModelFile, match=words) as refusal:
        load_weights(tmp_path, change(weights))
    assert str(refusal.value).startswith("tiny.safetensors: ")


def truncated(whole: bytes) -> bytes:
    return whole[:-1000]


def pickled(whole: bytes) -> bytes:
    return pickle.dumps({"state_dict": {}})


def endless_header(whole: bytes) -> bytes:
    return struct.pack("<Q", 1 << 60) + whole[8:]


def overlapping(whole: bytes) -> bytes:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9999999999]}}'
    return struct.pack("<Q", len(header)) + header + b"\0" * 8


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "not a whole safetensors file"),
        (pickled, "pickled file that is not opened"),
        (endless_header, "cut off"),
        (overlapping, "not a whole safetensors file"),
        (lambda _: b"", "is empty"),
        (lambda _: b"PK\x03\x04 a zip", "pickled file that is not opened"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    path = write_tiny_checkpoint(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadModelFile, match=words):
        load(path, None, CPU, torch.float32)


@pytest.mark.parametrize("name", ["tiny.ckpt", "other.CKPT", "misnamed.safetensors"])
def test_a_pickled_checkpoint_loads_to_the_same_networks(tmp_path: Path, name: str) -> None:
    single = write_tiny_checkpoint(tmp_path)
    weights = load_file(single)
    averages = {f"model_ema.{name.replace('.', '')}": value for name, value in list(weights.items())[:3]}
    content = {"state_dict": weights | averages, "epoch": 3, "optimizer_states": [{"state": {0: torch.ones(3)}}]}
    path = tmp_path / "pickled" / name
    path.parent.mkdir()
    torch.save(content, path)
    config = single.with_suffix(".yaml")
    one, other = (load(file, config, CPU, torch.float32) for file in (single, path))
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.decode(latent), other.decode(latent))
    t, context = torch.tensor([500.0]), torch.ones(1, 77, 64)
    assert torch.equal(one.denoise(latent, t, context), other.denoise(latent, t, context))
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile):
        load(tmp_path / "gone.safetensors", None, CPU, torch.float32)


def test_heads_that_do_not_divide_the_channels_are_refused(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path)
    config = path.with_suffix(".yaml")
    config.write_text(config.read_text().replace("num_heads: 2", "num_heads: 3"))
    with pytest.raises(BadModelFile, match="3 attention heads"):
        load(path, config, CPU, torch.float32)


@pytest.mark.skipif(embedded() is None, reason="the package was built without its model")
def test_the_model_that_comes_with_the_package_loads() -> None:
    path = embedded()
    assert path is not None
    network = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    assert network.native_size in (128, 256)
    assert network.decode(torch.zeros(1, 4, 16, 16)).shape == (1, 3, 128, 128)


@pytest.mark.parametrize(
    "shape", [(3,), (0, 4), (7, 5), (2, 300_000), (40_000, 7), (65, 30, 3, 3), (3, 5, 1, 1), (2, 3, 4)]
)
def test_half_precision_becomes_bf16_as_torch_has_it(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weight = (torch.randn(shape) * 1000).half()
    weight.view(-1)[:2] = torch.tensor([65504.0, 6e-8])[: weight.numel()]
    save_file({"w": weight}, tmp_path / "w.safetensors")
    with Checkpoint(tmp_path / "w.safetensors") as file:
        found = file._read(Part("w"), shape, torch.bfloat16, torch.device("cpu"))
    assert torch.equal(found, weight.to(torch.bfloat16))
    assert found.dim() != 4 or found.is_contiguous(memory_format=torch.channels_last)
