"""The `config.json` beside a network: the sizes in it that are known here, and nothing else of it. No torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.errors import BadModelFile

MAX_BYTES = 16 << 20
_LARGEST = 10_000_000

_COUNTS = frozenset(
    {
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
        "patch_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "sep_token_id", "pad_token_id",
    }
)  # fmt: skip
_ACTIVATIONS = frozenset({"gelu", "quick_gelu"})


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises BadModelFile."""
    shown = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadModelFile(f"{shown}: larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{shown}: cannot be read: {error!r:.200}") from error
    if not isinstance(content, dict):
        raise BadModelFile(f"{shown}: holds no object")
    return content


def sizes(content: Mapping[str, Any], section: str) -> dict[str, int | float | str]:
    """What a section says of a network's sizes; what it does not say is the published network's."""
    entries = content.get(section)
    known = entries if isinstance(entries, dict) else {}
    return {key: value for key, value in known.items() if _is_known(key, value)}


def _is_known(key: str, value: object) -> bool:
    if key in _COUNTS:
        return type(value) is int and 0 <= value <= _LARGEST
    if key == "layer_norm_eps":
        return isinstance(value, float) and 0 < value < 1
    return key == "hidden_act" and value in _ACTIVATIONS
