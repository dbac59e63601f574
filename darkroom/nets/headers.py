"""What a model file tells without being loaded: its safetensors header, and the JSON beside it. No torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 64 << 20

_FIRST_METADATA = ("ss_sd_model_name", "ss_resolution", "ss_clip_skip", "ss_num_train_images", "ss_tag_frequency")


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its tensors begin. Raises ValueError, TypeError, OSError."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= MAX_HEADER_BYTES:
            raise ValueError("not a safetensors header")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise TypeError("not a safetensors header")
    return header, 8 + size


def preferred_vae(checkpoint: Path) -> str | None:
    """The autoencoder that the JSON beside a checkpoint asks for."""
    wish = wishes_beside(checkpoint).get("vae")
    return wish if isinstance(wish, str) and wish else None


def wishes_beside(path: Path) -> dict[str, Any]:
    """What people noted of a file, in the JSON of its name that web pages write; nothing where there is none."""
    try:
        wishes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return wishes if isinstance(wishes, dict) else {}


def metadata_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of a header, JSON objects among them decoded, what people look for first."""
    stored = header.get("__metadata__")
    texts = {key: value for key, value in stored.items() if isinstance(value, str)} if isinstance(stored, dict) else {}
    ordered = {key: texts[key] for key in _FIRST_METADATA if key in texts} | texts
    return {key: _decoded(value) for key, value in ordered.items()}


def _decoded(value: str) -> Any:
    if not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
