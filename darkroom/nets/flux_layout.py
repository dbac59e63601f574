"""Where each weight of diffusers' FluxTransformer2DModel stands in a single-file checkpoint, and the network's sizes.

Names follow Black Forest Labs' flux (`model.py`) on one side and diffusers 0.4x on the other.
"""

from collections.abc import Mapping
from typing import Any

from darkroom.nets.layout import Part, Shapes, Source
from darkroom.nets.sd3_layout import share, swapped

_GUIDANCE = "guidance_in.in_layer.weight"
_ENDS: Mapping[str, str] = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
}
_DOUBLE: Mapping[str, str] = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_DOUBLE_QKV: Mapping[str, tuple[str, int]] = {
    "attn.to_q": ("img_attn", 0),
    "attn.to_k": ("img_attn", 1),
    "attn.to_v": ("img_attn", 2),
    "attn.add_q_proj": ("txt_attn", 0),
    "attn.add_k_proj": ("txt_attn", 1),
    "attn.add_v_proj": ("txt_attn", 2),
}
_SINGLE: Mapping[str, str] = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
_SINGLE_QKV: Mapping[str, int] = {"attn.to_q": 0, "attn.to_k": 1, "attn.to_v": 2}


def flux_sizes(shapes: Shapes) -> dict[str, Any]:
    """Arguments of diffusers' FluxTransformer2DModel. Raises KeyError or ValueError if the tensors are none."""
    width, channels = shapes["img_in.weight"]
    head = shapes["double_blocks.0.img_attn.norm.query_norm.scale"][0]
    if width % head:
        raise ValueError(f"{width} channels cannot be split into heads of {head}")
    order = head // 8
    return {
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0],
        "num_layers": sum(f"double_blocks.{i}.img_attn.qkv.weight" in shapes for i in range(128)),
        "num_single_layers": sum(f"single_blocks.{i}.linear1.weight" in shapes for i in range(256)),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["txt_in.weight"][1],
        "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        "guidance_embeds": _GUIDANCE in shapes,
        # An eighth of a head's channels tells nothing here, the others the row and the column: (16, 56, 56) of 128.
        "axes_dims_rope": (order, (head - order) // 2, (head - order) // 2),
    }


def flux_source(sizes: Mapping[str, Any]) -> Source:
    """Where a weight of a FluxTransformer2DModel of these sizes lies in the file."""
    width = sizes["attention_head_dim"] * sizes["num_attention_heads"]

    def source(name: str) -> str | Part:
        module, _, leaf = name.rpartition(".")
        if module == "norm_out.linear":
            return swapped(f"final_layer.adaLN_modulation.1.{leaf}", width)
        if module in _ENDS:
            return f"{_ENDS[module]}.{leaf}"
        stack, number, inner = module.split(".", 2)
        if stack == "single_transformer_blocks":
            return _single(f"single_blocks.{number}", inner, leaf)
        place = f"double_blocks.{number}"
        if inner in _DOUBLE_QKV:
            side, index = _DOUBLE_QKV[inner]
            return share(f"{place}.{side}.qkv.{leaf}", width, index, 3 * width)
        return f"{place}.{_DOUBLE[inner]}.{_norm_leaf(inner, leaf)}"

    def _single(place: str, inner: str, leaf: str) -> str | Part:
        # Queries, keys, values and the feed-forward's four times wider layer are one tensor.
        if inner in _SINGLE_QKV:
            return share(f"{place}.linear1.{leaf}", width, _SINGLE_QKV[inner], 7 * width)
        if inner == "proj_mlp":
            return Part(f"{place}.linear1.{leaf}", 7 * width, ((3 * width, 7 * width),))
        return f"{place}.{_SINGLE[inner]}.{_norm_leaf(inner, leaf)}"

    return source


def _norm_leaf(inner: str, leaf: str) -> str:
    return "scale" if inner.startswith("attn.norm_") else leaf
