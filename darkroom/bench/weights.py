"""Checkpoints of the published sizes with random weights: how quick a network is does not depend on what they are."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.nets import layout, open_clip_layout
from darkroom.nets.checkpoint import UNET, VAE
from darkroom.nets.layout import Part
from darkroom.nets.libraries import CLIPTextConfig, CLIPTextModel
from darkroom.nets.open_clip import OpenClip
from darkroom.nets.tensorfile import Form, write_tensors
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae

Forms = dict[str, Form]

NOISE = 1 << 22

_CROSS, _DOWN, _UP = "CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D"
_UNETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "sd15": {
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": (8,) * 4,
        },
        "sdxl": {
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "down_block_types": (_DOWN, _CROSS, _CROSS),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", _UP),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 2816,
        },
    }
)
_UPSAMPLERS_BEHIND_ATTENTION: Mapping[str, tuple[int, ...]] = MappingProxyType({"sd15": (5, 8), "sdxl": (2, 5)})


def write(name: str, path: Path) -> None:
    """Write a checkpoint of "sd15" or "sdxl" in half precision."""
    forms = dict(sorted(_forms(name).items()))
    with path.open("wb") as file:
        write_tensors(file, forms, {}, (piece for key, form in forms.items() for piece in _values(key, form)))


def _forms(name: str) -> Forms:
    found = _unet(name) | _vae()
    clip = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    if name == "sd15":
        return found | _text("cond_stage_model.transformer.text_model.", clip)
    return found | _text("conditioner.embedders.0.transformer.text_model.", clip) | _large_text()


def _unet(name: str) -> Forms:
    sizes = dict(_UNETS[name])
    behind = {f"output_blocks.{number}.2.conv.weight" for number in _UPSAMPLERS_BEHIND_ATTENTION[name]}
    return _named(build_unet(sizes), UNET, layout.unet_source(behind, 2))


def _vae() -> Forms:
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = build_vae({"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, **levels})
    found = _named(vae, VAE, layout.vae_source(4))
    # Files have convolutions where the module has matrices.
    attention = (key for key, form in found.items() if ".attn_1." in key and len(form.shape) == 2)
    return found | {key: Form(torch.float16, (*found[key].shape, 1, 1)) for key in list(attention)}


def _text(prefix: str, sizes: Mapping[str, int]) -> Forms:
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**sizes))
    return _named(model, prefix, lambda key: key)


def _large_text() -> Forms:
    prefix, width = "conditioner.embedders.1.model.", 1280
    sizes = {
        "hidden_size": width, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32,
        "vocab_size": 49408, "max_position_embeddings": 77,
    }  # fmt: skip
    with torch.device("meta"):
        model = OpenClip(sizes, width)
    return _named(model, "", open_clip_layout.source(prefix, width))


def _named(module: nn.Module, prefix: str, source: Callable[[str], str | Part]) -> Forms:
    found: Forms = {}
    for name, value in module.state_dict().items():
        place = source(name)
        part = place if isinstance(place, Part) else Part(place)
        found[prefix + part.key] = Form(torch.float16, part.shape_in_file(tuple(value.shape)))
    return found


def _values(name: str, form: Form) -> Iterator[Tensor]:
    """Numbers that keep a network's activations within bounds: norms do nothing, biases are zero, matrices are noise
    by the width of their input.
    """
    if len(form.shape) < 2:
        yield torch.full((form.count,), 1.0 if name.endswith("weight") else 0.0, dtype=torch.float16)
        return
    generator = torch.Generator().manual_seed(len(name))
    noise = (torch.randn(NOISE, generator=generator) * (0.5 / (form.count / form.shape[0]) ** 0.5)).half()
    for start in range(0, form.count, NOISE):
        yield noise[: form.count - start]


def original_config(name: str) -> dict[str, Any]:
    """What the YAML beside the published checkpoint says of its UNet and its autoencoder, for diffusers' loader."""
    same = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": 2}
    same |= {"use_spatial_transformer": True, "legacy": False}
    unets: dict[str, dict[str, Any]] = {
        "sd15": {
            "attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 4, 4], "num_heads": 8, "transformer_depth": 1,
            "context_dim": 768,
        },
        "sdxl": {
            "attention_resolutions": [4, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64,
            "transformer_depth": [1, 2, 10], "context_dim": 2048, "use_linear_in_transformer": True,
            "num_classes": "sequential", "adm_in_channels": 2816,
        },
    }  # fmt: skip
    shape: dict[str, Any] = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
    }
    shape |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    return {
        "model": {
            "params": {
                "unet_config": {"params": same | unets[name]},
                "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": shape}},
            }
        }
    }


def random_adapter(shapes: Mapping[str, Iterable[int]], rank: int, seed: int) -> dict[str, Tensor]:
    """A LoRA of every matrix in a checkpoint's denoiser, by the names that trainers give."""
    torch.manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        sides = tuple(shape)
        if name.startswith(UNET) and name.endswith(".weight") and len(sides) == 2:
            layer = "lora_unet_" + name.removeprefix(UNET).removesuffix(".weight").replace(".", "_")
            found[f"{layer}.lora_up.weight"] = torch.randn(sides[0], rank) * 0.01
            found[f"{layer}.lora_down.weight"] = torch.randn(rank, sides[1]) * 0.01
    return found
