"""Where each weight of a diffusers or transformers module stands in a single-file (LDM) checkpoint, and its sizes.

Names follow CompVis' latent-diffusion (`openaimodel.py`, `autoencoder.py`) on one side and diffusers 0.3x on the other.
Names are mapped *from* the module *to* the file: what is asked for and not there is missing, the rest is left over.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.nets.config import ModelConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of one network's tensors by name, the network's prefix taken off."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file's tensor that has `total` of them: those of each range (from, up to), one after the other. No
    ranges mean the whole tensor.
    """

    key: str
    total: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    def shape_in_file(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor, where the part is of this shape."""
        return (self.total, *shape[1:]) if self.ranges else shape


Source = Callable[[str], str | Part]
"""Where a module's weight, given by its name, lies in a file."""

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESIZERS = {"downsamplers": "downsample", "upsamplers": "upsample"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}


def unet_sizes(shapes: Shapes, config: ModelConfig) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel. Raises KeyError or ValueError if the tensors are no such UNet."""
    layers = _unet_layers(shapes)
    levels = 1 + sum(f"input_blocks.{(layers + 1) * (i + 1)}.0.op.weight" in shapes for i in range(16))
    first = [f"input_blocks.{1 + (layers + 1) * i}" for i in range(levels)]
    channels = tuple(shapes[f"{name}.0.in_layers.2.weight"][0] for name in first)
    attends = [f"{name}.1.norm.weight" in shapes for name in first]
    labels = shapes.get("label_emb.0.0.weight")
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        "block_out_channels": channels,
        "layers_per_block": layers,
        **_depths(shapes, levels, layers),
        # diffusers calls the number of heads attention_head_dim here, for the sake of old files.
        "attention_head_dim": tuple(_heads(width, config) for width in channels),
        "cross_attention_dim": _first(shapes, ".attn2.to_k.weight")[1],
        "use_linear_projection": len(_first(shapes, ".proj_in.weight")) == 2,
        "class_embed_type": labels and "projection",
        "projection_class_embeddings_input_dim": labels and labels[1],
    }


def _depths(shapes: Shapes, levels: int, layers: int) -> dict[str, Any]:
    """How many transformer blocks each attention has. Distilled networks lack some of them, or the middle's whole
    attention.
    """
    down = [
        [_depth(shapes, f"input_blocks.{1 + (layers + 1) * i + j}.1") for j in range(layers)] for i in range(levels)
    ]
    up = [[_depth(shapes, f"output_blocks.{(layers + 1) * i + j}.1") for j in range(layers + 1)] for i in range(levels)]
    middle = _depth(shapes, "middle_block.1")
    even = all(len({*below, *above}) == 1 for below, above in zip(down, reversed(up), strict=True))
    if middle and even:
        return {"transformer_layers_per_block": tuple(depths[0] or middle for depths in down)}
    if middle:
        raise ValueError("attentions of unlike depth beside one in the middle")
    return {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [[depth or 1 for depth in depths] for depths in down],
        "reverse_transformer_layers_per_block": [[depth or 1 for depth in depths] for depths in up],
    }


def _first(shapes: Shapes, end: str) -> tuple[int, ...]:
    """The shape of the first tensor of such a name. Raises KeyError."""
    for name, shape in shapes.items():
        if name.endswith(end):
            return shape
    raise KeyError(end)


def unet_source(names: Container[str], layers: int) -> Callable[[str], str]:
    """The file's name of a UNet2DConditionModel weight, for `layers` residual blocks per level."""
    return lambda name: _unet_name(name.split("."), names, layers)


def _unet_layers(shapes: Shapes) -> int:
    """Residual blocks per level: the first downsampler stands right behind those of the first level."""
    blocks = sum(f"input_blocks.{i}.0.in_layers.2.weight" in shapes for i in range(1, 64))
    layers = next((i - 1 for i in range(1, 64) if f"input_blocks.{i}.0.op.weight" in shapes), blocks)
    if layers < 1:
        raise ValueError("no residual block in the first level")
    return layers


def _depth(shapes: Shapes, attention: str) -> int:
    return sum(f"{attention}.transformer_blocks.{i}.norm1.weight" in shapes for i in range(64))


def _heads(channels: int, config: ModelConfig) -> int:
    heads = channels // config.head_channels if config.head_channels else config.heads or 8
    if heads < 1 or channels % heads:
        raise ValueError(f"{channels} channels cannot be split into {heads} attention heads")
    return heads


def _unet_name(parts: list[str], names: Container[str], layers: int) -> str:
    match parts:
        case ["mid_block", kind, number, *rest]:
            return _unet_block("middle_block", 2 * int(number) if kind == "resnets" else 1, kind, rest)
        case ["down_blocks", level, "downsamplers", _, _, leaf]:
            return f"input_blocks.{(layers + 1) * (int(level) + 1)}.0.op.{leaf}"
        case ["up_blocks", level, "upsamplers", _, _, leaf]:
            block = f"output_blocks.{(layers + 1) * int(level) + layers}"
            behind_attention = f"{block}.2.conv.weight" in names
            return f"{block}.{2 if behind_attention else 1}.conv.{leaf}"
        case ["down_blocks" | "up_blocks" as side, level, kind, number, *rest]:
            place = (layers + 1) * int(level) + int(number)
            block = f"input_blocks.{1 + place}" if side == "down_blocks" else f"output_blocks.{place}"
            return _unet_block(block, 0 if kind == "resnets" else 1, kind, rest)
        case [*module, leaf]:
            return f"{_UNET_ENDS['.'.join(module)]}.{leaf}"
    raise KeyError(".".join(parts))


def _unet_block(block: str, place: int, kind: str, rest: list[str]) -> str:
    inner = [_UNET_RESNET[rest[0]], *rest[1:]] if kind == "resnets" else rest
    return ".".join([block, str(place), *inner])


def vae_sizes(shapes: Shapes, config: ModelConfig) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL. Raises KeyError if the tensors are no such autoencoder."""
    levels = sum(f"encoder.down.{i}.block.0.conv1.weight" in shapes for i in range(16))
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": tuple(shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)),
        "layers_per_block": sum(f"encoder.down.0.block.{i}.conv1.weight" in shapes for i in range(16)),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "scaling_factor": config.scale,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def vae_source(levels: int) -> Callable[[str], str]:
    """The file's name of an AutoencoderKL weight, for an autoencoder of so many levels."""
    return lambda name: _vae_name(name.split("."), levels)


def _vae_name(parts: list[str], levels: int) -> str:
    match parts:
        case [side, "conv_norm_out", leaf]:
            return f"{side}.norm_out.{leaf}"
        case [side, "mid_block", "resnets", number, *rest]:
            block = f"mid.block_{int(number) + 1}"
        case [side, "mid_block", "attentions", _, part, *rest]:
            block, rest = f"mid.attn_1.{_VAE_ATTENTION[part]}", rest[-1:]
        case [side, "down_blocks" | "up_blocks" as way, level, kind, number, *rest]:
            stage = f"down.{level}" if way == "down_blocks" else f"up.{levels - 1 - int(level)}"
            block = f"{stage}.block.{number}" if kind == "resnets" else f"{stage}.{_VAE_RESIZERS[kind]}"
        case _:
            return ".".join(parts)
    return ".".join([side, block, *("nin_shortcut" if part == "conv_shortcut" else part for part in rest)])


def clip_sizes(shapes: Shapes) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig. Raises KeyError if the tensors are no such encoder."""
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": sum(f"encoder.layers.{i}.layer_norm1.weight" in shapes for i in range(128)),
        # OpenAI's CLIP always used heads of 64 channels.
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
    }
