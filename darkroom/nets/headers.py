"""What a model file tells without being loaded: its safetensors header, and the JSON beside it. No torch."""

import json
from pathlib import Path
from typing import Any, Literal

Conditioning = Literal["none", "inpaint", "edit", "depth"]
"""What a checkpoint's UNet sees beside the latent."""

_UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_BY_CHANNELS: dict[int, Conditioning] = {5: "depth", 8: "edit", 9: "inpaint"}

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


def text_width(path: Path) -> int | None:
    """The width of a checkpoint's token vectors, all its text encoders together; None where the file does not say."""
    try:
        header, _ = read_header(path)
        tables = [entry for name, entry in header.items() if name.endswith("token_embedding.weight")]
        return sum(int(entry["shape"][1]) for entry in tables) or None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def conditioning_of(path: Path) -> Conditioning:
    """What a checkpoint's UNet sees beside the latent, told by the channels of its input; "none" if in doubt."""
    try:
        header, _ = read_header(path)
        return _BY_CHANNELS.get(int(header[_UNET_INPUT]["shape"][1]), "none")
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return "none"  # loading it will say what is wrong with it, to whoever asks for it


def preferred_vae(checkpoint: Path) -> str | None:
    """The autoencoder that the JSON beside a checkpoint asks for."""
    try:
        wish = json.loads(checkpoint.with_suffix(".json").read_text(encoding="utf-8")).get("vae")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return wish if isinstance(wish, str) and wish else None
