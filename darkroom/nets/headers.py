"""What a model file tells without being loaded: its safetensors header, and the JSON beside it. No torch."""

import json
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 64 << 20


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


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's tensors; none if it cannot be read: loading it will say what is wrong
    with it, to whoever asks for it.
    """
    try:
        header, _ = read_header(path)
        return {name: tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}


def preferred_vae(checkpoint: Path) -> str | None:
    """The autoencoder that the JSON beside a checkpoint asks for."""
    try:
        wish = json.loads(checkpoint.with_suffix(".json").read_text(encoding="utf-8")).get("vae")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return wish if isinstance(wish, str) and wish else None
