"""Models in diffusers' layout: written by diffusers and transformers themselves, they are what a single file is."""

import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from darkroom.errors import BadModelFile
from darkroom.nets import flux_layout, sd3_layout
from darkroom.nets.architecture import identify
from darkroom.nets.catalog import Catalog
from darkroom.nets.checkpoint import is_ignorable
from darkroom.nets.config import beside, read_config
from darkroom.nets.inspection import read_shapes
from darkroom.nets.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    T5Config,
    T5EncoderModel,
    UNet2DConditionModel,
)
from darkroom.nets.opening import open_tensors
from darkroom.nets.store import load
from darkroom.nets.text import Asked, Text
from darkroom.nets.tokenizer import BOS, EOS
from darkroom.nets.vae import load_vae
from tests.recordings import RECORDED
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae
from tests.tiny.folders import write_json, write_tiny_folder

CPU = torch.device("cpu")
STATE_DICTS = RECORDED.parent / "state-dicts"
SMALL_VAE = {"block_out_channels": (32,), "norm_num_groups": 8}


def weights(path: Path) -> dict[str, Tensor]:
    tensors = open_tensors(path)
    return {name: tensors.get_tensor(name).clone() for name in tensors.shapes}


def alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name].flatten(), other[name].flatten()) for name in one)


def test_a_folder_has_the_tensors_of_the_single_file(tmp_path: Path) -> None:
    single = write_tiny_folder(tmp_path / "model")
    assert alike(weights(tmp_path / "model"), weights(single))
    assert read_shapes(tmp_path / "model").keys() == read_shapes(single).keys()


def test_a_folder_loads_to_the_same_networks(tmp_path: Path) -> None:
    single = write_tiny_folder(tmp_path / "model")
    one = load(single, single.with_suffix(".yaml"), CPU, torch.float32)
    other = load(tmp_path / "model", beside(tmp_path / "model"), CPU, torch.float32)
    assert alike(one._unet.state_dict(), other._unet.state_dict())
    assert one._unet.config.attention_head_dim == other._unet.config.attention_head_dim


def test_weights_may_lie_in_several_files_or_in_half_precision(tmp_path: Path) -> None:
    single = write_tiny_folder(tmp_path / "model")
    unet = tmp_path / "model" / "unet"
    whole = load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    halves = [dict(list(whole.items())[number::2]) for number in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, unet / name)
    places = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    write_json(unet / "diffusion_pytorch_model.safetensors.index.json", weight_map=places)
    text = tmp_path / "model" / "text_encoder"
    (text / "model.safetensors").rename(text / "model.fp16.safetensors")
    assert alike(weights(tmp_path / "model"), weights(single))


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path / "model")
    unet = tmp_path / "model" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    write_json(unet / "diffusion_pytorch_model.safetensors.index.json", weight_map={"a": "../../elsewhere.safetensors"})
    with pytest.raises(BadModelFile, match="no file beside it"):
        open_tensors(tmp_path / "model")


@pytest.mark.parametrize("missing", ["unet", "vae", "text_encoder"])
def test_a_folder_that_lacks_a_network_is_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    write_tiny_folder(tmp_path / "model")
    (tmp_path / "model" / missing).rename(tmp_path / "gone")
    with pytest.raises(BadModelFile, match=r"model: .*diffusers"):
        open_tensors(tmp_path / "model")


def test_old_names_of_the_autoencoders_attention_are_known(tmp_path: Path) -> None:
    single = write_tiny_folder(tmp_path / "model")
    path = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(path).items():
        now = next((name.replace(new, was) for new, was in old.items() if f".{new}." in name), name)
        renamed[now] = tensor
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in renamed
    save_file(renamed, path)
    assert alike(weights(tmp_path / "model"), weights(single))


@pytest.mark.parametrize("kind", ["safetensors", "pickled"])
def test_an_autoencoder_of_its_own_may_be_in_either_layout(tmp_path: Path, kind: str) -> None:
    write_tiny_folder(tmp_path / "model")
    alone = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    if kind == "pickled":
        torch.save({"state_dict": load_file(alone), "step": 1}, tmp_path / "mine.vae.pt")
        alone = tmp_path / "mine.vae.pt"
    usual = load_vae(write_tiny_vae(tmp_path / "usual.safetensors"), 0.18215, CPU, torch.float16)
    other = load_vae(alone, 0.18215, CPU, torch.float16)
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(usual.decode(latent), other.decode(latent))


def test_the_scheduler_and_the_unet_tell_what_a_yaml_would(tmp_path: Path) -> None:
    write_json(tmp_path / "model_index.json")
    write_json(
        tmp_path / "scheduler" / "scheduler_config.json",
        beta_start=0.001, beta_end=0.02, num_train_timesteps=500, prediction_type="v_prediction",
    )  # fmt: skip
    write_json(tmp_path / "unet" / "config.json", attention_head_dim=[5, 10], block_out_channels=[320, 640])
    config = read_config(beside(tmp_path))
    assert (config.linear_start, config.linear_end, config.timesteps) == (0.001, 0.02, 500)
    assert (config.prediction, config.heads, config.head_channels) == ("v", None, 64)
    write_json(tmp_path / "unet" / "config.json", attention_head_dim=8, block_out_channels=[320, 640])
    assert read_config(beside(tmp_path)).heads == 8


def test_a_folder_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path / "models" / "sub" / "mine")
    write_tiny_checkpoint(tmp_path / "models", "beside")
    catalog = Catalog([tmp_path / "models"])
    listed = catalog.refresh()
    folder = next(file for file in listed if file.path == "sub/mine")
    assert sorted(file.path for file in listed) == ["beside.safetensors", "sub/mine", "sub/single/tiny.safetensors"]
    assert folder.architecture == "sd1"
    assert folder.config == str(tmp_path / "models" / "sub" / "mine" / "model_index.json")
    first = catalog.sha256(folder.filename)
    path = tmp_path / "models" / "sub" / "mine" / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert catalog.sha256(folder.filename) != first
    catalog.close()


def open_clip_as_published(encoder: Any, *, layers: int) -> Any:
    """An OpenCLIP encoder as transformers has it, its first so many layers."""
    text = encoder.text
    projected = encoder.projection is not None
    sizes = text.config.to_dict() | {"num_hidden_layers": layers}
    sizes |= {"projection_dim": encoder.projection.shape[1]} if projected else {}
    made = (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(**sizes))
    own = made.state_dict()
    state = {
        name: value for name, value in text.state_dict().items() if not name.startswith(f"encoder.layers.{layers}.")
    }
    prefix = "text_model." if any(name.startswith("text_model.") for name in own) else ""
    state = {prefix + name: value for name, value in state.items()}
    if projected:
        state["text_projection.weight"] = encoder.projection.detach().t().contiguous()
    missing, odd = made.load_state_dict(state, strict=False)
    assert not odd
    assert all(name.endswith("position_ids") for name in missing)
    return made


@pytest.mark.parametrize("family", ["sd2", "sdxl", "refiner"])
def test_a_folder_of_every_family_answers_as_the_single_file(tmp_path: Path, family: str) -> None:
    single = write_tiny_checkpoint(tmp_path / "single", family, family=family, dtype=torch.float32)
    one = load(single, single.with_suffix(".yaml"), CPU, torch.float32)
    folder, text = tmp_path / "model", one._text.module
    one._unet.save_pretrained(folder / "unet")
    one._vae.module.save_pretrained(folder / "vae")
    towers: Any = text
    if family == "sd2":
        layers = towers.text.config.num_hidden_layers - 1
        open_clip_as_published(towers, layers=layers).save_pretrained(folder / "text_encoder")
    else:
        layers = towers.large.text.config.num_hidden_layers
        open_clip_as_published(towers.large, layers=layers).save_pretrained(folder / "text_encoder_2")
    if family == "sdxl":
        towers.small.save_pretrained(folder / "text_encoder")
    write_json(folder / "model_index.json")
    weights_of = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    renamed = {name.replace("class_embedding.", "add_embedding."): value for name, value in weights_of.items()}
    save_file(renamed, folder / "unet" / "diffusion_pytorch_model.safetensors")
    write_json(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    other = load(folder, beside(folder), CPU, torch.float32)
    numbers = {"sdxl": (64.0, 64.0, 0.0, 0.0, 64.0, 64.0), "refiner": (64.0, 64.0, 0.0, 0.0, 6.0)}.get(family, ())
    asked = Text(chunks=[[BOS, 320, 321, *[EOS] * 74]], weights=[[1.0] * 77], insertions=())
    told, heard = (network.encode_text([asked], Asked(numbers=numbers)) for network in (one, other))
    assert torch.equal(told.context, heard.context)
    assert (told.vector is None) == (heard.vector is None)
    assert told.vector is None or heard.vector is None or torch.equal(told.vector, heard.vector)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([500.0])
    noise = [network.denoise(x, t, told.context, told.vector) for network in (one, other)]
    assert torch.equal(*noise)


# Full-size models, of which headers alone are written.


def write_header(module: nn.Module, path: Path) -> None:
    """A safetensors file of all the weights of a module, without their numbers."""
    header, end = {}, 0
    for name, value in module.state_dict().items():
        begin, end = end, end + 2 * value.numel()
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, end]}
    data = json.dumps(header).encode()
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + end)


def clip(width: int, layers: int, heads: int, projected: int | None = None) -> Any:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = CLIPTextConfig(intermediate_size=4 * width, projection_dim=projected or width, **sizes)
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def vae() -> nn.Module:
    made: nn.Module = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return made


SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
XL = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True,
}  # fmt: skip
MODELS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, tuple[int, int, int, int | None]]]] = {
    "sd1": (SD | {"cross_attention_dim": 768, "attention_head_dim": 8}, {"text_encoder": (768, 12, 12, None)}),
    "sd2-v": (
        SD | {
            "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
        },
        {"text_encoder": (1024, 23, 16, None)},
    ),
    "sdxl-base": (
        XL | {
            "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
            "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
            "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10), "projection_class_embeddings_input_dim": 2816,
        },
        {"text_encoder": (768, 12, 12, None), "text_encoder_2": (1280, 32, 20, 1280)},
    ),
    "sdxl-refiner": (
        XL | {
            "block_out_channels": (384, 768, 1536, 1536), "cross_attention_dim": 1280,
            "attention_head_dim": (6, 12, 24, 24), "transformer_layers_per_block": 4,
            "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
            "projection_class_embeddings_input_dim": 2560,
        },
        {"text_encoder_2": (1280, 32, 20, 1280)},
    ),
}  # fmt: skip


def recorded_shapes(name: str) -> dict[str, tuple[int, ...]]:
    path = STATE_DICTS / f"{name}.json.gz"
    if not path.is_file():
        pytest.skip("the lists of the original layouts (../shared/reference/state-dicts) are not here")
    content = json.loads(gzip.decompress(path.read_bytes()))
    return {key: tuple(shape) for key, (shape, _) in content.items() if not is_ignorable(key)}


@pytest.mark.parametrize("name", MODELS)
def test_a_full_size_folder_has_every_tensor_of_the_published_file(tmp_path: Path, name: str) -> None:
    unet, texts = MODELS[name]
    with torch.device("meta"):
        write_header(UNet2DConditionModel(**unet), tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
        write_header(vae(), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
        for part, sizes in texts.items():
            write_header(clip(*sizes), tmp_path / part / "model.safetensors")
            write_json(tmp_path / part / "config.json", hidden_act="quick_gelu" if sizes[0] == 768 else "gelu")
    write_json(tmp_path / "model_index.json")
    write_json(tmp_path / "unet" / "config.json", layers_per_block=2)
    found = {key: shape for key, shape in read_shapes(tmp_path).items() if not is_ignorable(key)}
    wanted = recorded_shapes(name)
    assert found.keys() == wanted.keys()
    # Where the one has a matrix the other may have a convolution of one by one.
    assert {key: squeezed(shape) for key, shape in found.items()} == {k: squeezed(shape) for k, shape in wanted.items()}
    assert identify(found) == identify(wanted)


@pytest.mark.parametrize("kind", ["SD3Transformer2DModel", "FluxTransformer2DModel"])
def test_a_folder_of_a_flow_model_has_what_its_family_looks_for(tmp_path: Path, kind: str) -> None:
    sizes: dict[str, Any] = {"attention_head_dim": 8, "num_attention_heads": 2, "num_layers": 2}
    t5 = T5EncoderModel(T5Config(vocab_size=16, d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=1))
    if kind == "SD3Transformer2DModel":
        sizes |= {"caption_projection_dim": 16, "joint_attention_dim": 16, "pooled_projection_dim": 16}
        made = SD3Transformer2DModel(sample_size=8, in_channels=16, qk_norm="rms_norm", **sizes)
        texts = {"text_encoder": clip(8, 1, 1, 8), "text_encoder_2": clip(8, 1, 1, 8), "text_encoder_3": t5}
    else:
        sizes |= {"joint_attention_dim": 16, "pooled_projection_dim": 8}
        sizes |= {"attention_head_dim": 32, "axes_dims_rope": (4, 14, 14)}
        made = FluxTransformer2DModel(in_channels=16, num_single_layers=1, guidance_embeds=True, **sizes)
        texts = {"text_encoder": clip(8, 1, 1), "text_encoder_2": t5}
    made.save_pretrained(tmp_path / "transformer")
    for part, text in texts.items():
        text.save_pretrained(tmp_path / part)
    with torch.device("meta"):
        write_header(vae(), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    write_json(tmp_path / "model_index.json")
    tensors, prefix = open_tensors(tmp_path), "model.diffusion_model."
    assert identify(tensors.shapes) == ("sd3" if kind.startswith("SD3") else "flux")
    own = {name.removeprefix(prefix): shape for name, shape in tensors.shapes.items() if name.startswith(prefix)}
    layout = sd3_layout if kind.startswith("SD3") else flux_layout
    found = layout.sd3_sizes(own) if layout is sd3_layout else flux_layout.flux_sizes(own)
    assert {name: found[name] for name in sizes if name in found} == sizes
    # The file has the shift before the scale, and one tensor for queries, keys and values.
    head = made.norm_out.linear.weight
    stored = tensors.get_tensor(f"{prefix}final_layer.adaLN_modulation.1.weight")
    assert torch.equal(stored, torch.cat([head[len(head) // 2 :], head[: len(head) // 2]]))
    attention = made.transformer_blocks[0].attn
    name = "joint_blocks.0.x_block.attn.qkv.weight" if layout is sd3_layout else "double_blocks.0.img_attn.qkv.weight"
    rows = [attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]
    assert torch.equal(tensors.get_tensor(prefix + name), torch.cat(rows))
    assert torch.equal(tensors.get_slice(prefix + name)[len(rows[0]) : 2 * len(rows[0])], rows[1])
    assert "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight" in tensors.shapes


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def test_stacked_rows_and_the_turned_matrix_hold_the_right_numbers(tmp_path: Path) -> None:
    encoder = clip(64, 2, 1, 32)
    encoder.save_pretrained(tmp_path / "text_encoder_2")
    with torch.device("meta"):
        write_header(UNet2DConditionModel(), tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
        write_header(vae(), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    write_json(tmp_path / "model_index.json")
    write_json(tmp_path / "unet" / "config.json")
    tensors, prefix = open_tensors(tmp_path), "conditioner.embedders.0.model."
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    projection = tensors.get_tensor(prefix + "text_projection")
    assert projection.shape == tensors.shapes[prefix + "text_projection"] == (64, 32)
    assert torch.equal(projection, state["text_projection.weight"].t())
    for leaf in ("weight", "bias"):
        rows = [state[f"encoder.layers.1.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
        name = f"{prefix}transformer.resblocks.1.attn.in_proj_{leaf}"
        assert torch.equal(tensors.get_tensor(name), torch.cat(rows))
        assert torch.equal(tensors.get_slice(name)[64:128], rows[1])
        assert torch.equal(tensors.get_slice(name)[60:130], torch.cat(rows)[60:130])
