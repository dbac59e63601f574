"""Where each weight of an OpenCLIP text encoder stands in a single-file checkpoint, and its sizes. No torch.

Files stack the rows of queries, keys and values. Names are those of `open_clip.OpenClip` on one side, of OpenCLIP's
`transformer.py` on the other.
"""

from collections.abc import Mapping
from typing import Any

from darkroom.nets.layout import Part, Source

HEAD = 64
"""Channels of an attention head, in all published sizes."""

_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_STACKED = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}


def sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig. Raises KeyError if the tensors are no such encoder."""
    vocabulary, width = shapes["token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": sum(f"transformer.resblocks.{i}.ln_1.weight" in shapes for i in range(128)),
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": shapes["positional_embedding"][0],
        "hidden_act": "gelu",
    }


def source(prefix: str, width: int) -> Source:
    """Where the weights of an `OpenClip` of so many channels lie in a file, under a prefix."""
    return lambda name: _source(prefix, width, name)


def _source(prefix: str, width: int, name: str) -> str | Part:
    if name == "projection":
        return f"{prefix}text_projection"
    name = name.removeprefix("text.")
    if name in _ENDS:
        return prefix + _ENDS[name]
    _, _, number, *inner, leaf = name.split(".")
    layer, module = f"{prefix}transformer.resblocks.{number}", ".".join(inner)
    if module in _STACKED:
        start = _STACKED[module] * width
        return Part(f"{layer}.attn.in_proj_{leaf}", 3 * width, ((start, start + width),))
    return f"{layer}.{_IN_LAYER[module]}.{leaf}"
