"""What tools call the layers of adapters and their tensors, brought to one way of naming: `layer` with underscores for
dots, and the end of the name in kohya's or LyCORIS' words. Knows no tensor; no torch.

Kohya and LyCORIS write `lora_unet_mid_block_0.lora_up.weight`, diffusers `unet.mid_block.0.lora.up.weight` or an older
`unet.mid_block.0.processor.to_q_lora.up.weight`, PEFT `unet.mid_block.0.lora_B.weight`, sometimes behind a prefix.
"""

import re

MAGNITUDE = "lora_magnitude_vector"
"""PEFT's lengths of a decomposed weight's rows."""

_PREFIX = re.compile(r"^(base_model\.model\.|model\.(?=diffusion_model\.))")
_UNET_ROOTS = (
    "down_blocks", "up_blocks", "mid_block", "conv_in", "conv_out", "time_embedding", "add_embedding",
)  # fmt: skip
_TEXT_ROOT = "text_model"
_ROOTS = frozenset(
    {
        *_UNET_ROOTS, _TEXT_ROOT, "unet", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer",
        "base_model", "model", "diffusion_model",
    }
)  # fmt: skip
"""What names begin with that have dots within a layer's; in all others the layer is all before the first dot."""

_DOTTED = re.compile(
    r"""(?P<layer>.+?)(?:
        (?P<older>[._]lora|\.lora_linear_layer)\.(?P<way>up|down)\.weight
        |\.lora_(?P<letter>[AB])(?:\.default\w*)?\.weight
        |\.(?P<magnitude>lora_magnitude_vector)(?:\.default\w*)?(?:\.weight)?
        |\.(?P<part>lora_(?:up|down|mid)\.weight|[ab][12]\.weight|(?:hada|lokr|oft)_\w+|alpha|dora_scale|scale|rescale
           |diff|diff_b|w_norm|b_norm|weight|on_input|bias)
    )""",
    re.VERBOSE,
)


def split(key: str) -> tuple[str, str]:
    """The layer that a tensor of a file belongs to, and what it is there; the latter is empty for a name that has no
    such end.
    """
    root, _, rest = key.partition(".")
    found = _DOTTED.fullmatch(_PREFIX.sub("", key)) if root in _ROOTS else None
    return (root, rest) if found is None else (_layer(found["layer"]), _part(found))


def _part(found: re.Match[str]) -> str:
    if found["way"]:
        return f"lora_{found['way']}.weight"
    if found["letter"]:
        return f"lora_{found['letter']}.weight"
    return str(found["magnitude"] or found["part"])


def _layer(name: str) -> str:
    if ".processor." in name:
        name = name.replace(".processor.", ".")
        name = f"{name}.0" if name.endswith(".to_out") else name
    root = name.partition(".")[0]
    if root in _UNET_ROOTS:
        name = f"unet.{name}"
    elif root == _TEXT_ROOT:
        name = f"text_encoder.{name}"
    return name.replace(".", "_")
