"""What diffusers notes in the header of an adapter's file: the alpha of its layers, which PEFT keeps apart from their
tensors. No torch.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.nets.headers import read_header

_KEY = "lora_adapter_metadata"


def read_notes(path: Path) -> dict[str, Any]:
    """The notes of a safetensors file; nothing where there are none."""
    try:
        header, _ = read_header(path)
        notes = json.loads(header["__metadata__"][_KEY])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def scale_of(notes: Mapping[str, Any], layer: str, rank: int) -> float | None:
    """The factor of a layer's change, of such a rank, that the notes ask for; None if they say nothing of it.

    The layer is named as `adapter_names.split` does. Rank stabilisation divides by a root: Kalajdzievski 2023,
    arXiv:2312.03732, equation 3.
    """
    roots = {key.partition(".")[0] for key in notes}
    root = max((root for root in roots if layer.startswith(f"{root}_")), key=len, default=None)
    if root is None:
        return None
    alpha = _patterned(notes.get(f"{root}.alpha_pattern"), layer, notes.get(f"{root}.lora_alpha"))
    if not isinstance(alpha, int | float) or rank < 1:
        return None
    return alpha / (rank**0.5 if notes.get(f"{root}.use_rslora") else rank)


def _patterned(patterns: object, layer: str, default: object) -> object:
    """What the first pattern that names the layer's end says."""
    named = patterns.items() if isinstance(patterns, dict) else ()
    ends = ((re.sub(r"\W+", "_", str(pattern)).strip("_"), value) for pattern, value in named)
    return next((value for end, value in ends if layer.endswith(f"_{end}")), default)
