"""Where each weight of diffusers' SD3Transformer2DModel stands in a single-file checkpoint, and the network's sizes.

Names follow Stability AI's sd3-ref (`mmdit.py`) and sd3.5 (`mmditx.py`) on one side and diffusers 0.4x on the other.
Stable Diffusion 3 and 3.5: Esser et al. 2024, arXiv:2403.03206.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from darkroom.nets.layout import Part, Shapes, Source

HEAD_CHANNELS = 64
"""Of all published checkpoints; those that normalise queries tell it as well."""

_QUERY_NORM = "joint_blocks.0.x_block.attn.ln_q.weight"
_ENDS: Mapping[str, str] = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
}
_BLOCK: Mapping[str, str] = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_QKV: Mapping[str, tuple[str, int]] = {
    "attn.to_q": ("x_block.attn", 0),
    "attn.to_k": ("x_block.attn", 1),
    "attn.to_v": ("x_block.attn", 2),
    "attn.add_q_proj": ("context_block.attn", 0),
    "attn.add_k_proj": ("context_block.attn", 1),
    "attn.add_v_proj": ("context_block.attn", 2),
    "attn2.to_q": ("x_block.attn2", 0),
    "attn2.to_k": ("x_block.attn2", 1),
    "attn2.to_v": ("x_block.attn2", 2),
}


def sd3_sizes(shapes: Shapes) -> dict[str, Any]:
    """Arguments of diffusers' SD3Transformer2DModel. Raises KeyError or ValueError if the tensors are none."""
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    head = shapes[_QUERY_NORM][0] if _QUERY_NORM in shapes else HEAD_CHANNELS
    if width % head:
        raise ValueError(f"{width} channels cannot be split into heads of {head}")
    layers = sum(f"joint_blocks.{i}.x_block.attn.qkv.weight" in shapes for i in range(128))
    return {
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0] // patch**2,
        "num_layers": layers,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["context_embedder.weight"][1],
        "caption_projection_dim": shapes["context_embedder.weight"][0],
        "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1],
        "pos_embed_max_size": round(shapes["pos_embed"][1] ** 0.5),
        "dual_attention_layers": tuple(
            i for i in range(layers) if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes
        ),
        "qk_norm": "rms_norm" if _QUERY_NORM in shapes else None,
    }


def sd3_source(sizes: Mapping[str, Any]) -> Source:
    """Where a weight of an SD3Transformer2DModel of these sizes lies in the file."""
    width = sizes["attention_head_dim"] * sizes["num_attention_heads"]
    last = str(sizes["num_layers"] - 1)

    def source(name: str) -> str | Part:
        module, _, leaf = name.rpartition(".")
        if name == "pos_embed.pos_embed":
            return "pos_embed"
        if module == "norm_out.linear":
            return swapped(f"final_layer.adaLN_modulation.1.{leaf}", width)
        if module in _ENDS:
            return f"{_ENDS[module]}.{leaf}"
        _, number, inner = module.split(".", 2)
        place = f"joint_blocks.{number}"
        if inner in _QKV:
            fused, index = _QKV[inner]
            return share(f"{place}.{fused}.qkv.{leaf}", width, index, 3 * width)
        key = f"{place}.{_BLOCK[inner]}.{leaf}"
        # The last block only reads the text: its modulation of it is a scale and a shift alone.
        return swapped(key, width) if number == last and inner == "norm1_context.linear" else key

    return source


def under(prefix: str, source: Source) -> Source:
    """The same places where all names of the file begin with a prefix."""

    def prefixed(name: str) -> str | Part:
        place = source(name)
        return prefix + place if isinstance(place, str) else replace(place, key=prefix + place.key)

    return prefixed


def share(key: str, width: int, index: int, total: int) -> Part:
    """The rows of one of several matrices of so many rows that the file holds as one tensor."""
    return Part(key, total, ((index * width, (index + 1) * width),))


def swapped(key: str, width: int) -> Part:
    """Scale before shift, where the file has the shift first."""
    return Part(key, 2 * width, ((width, 2 * width), (0, width)))
