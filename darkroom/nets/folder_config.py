"""What the JSON files of a model in diffusers' layout say about it, in the form of the YAML beside a single file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
"""The file by which such a folder is known."""

MAX_JSON_BYTES = 32 << 20


def as_document(folder: Path) -> Mapping[str, object]:
    """A folder's settings as CompVis' latent-diffusion would write them. Raises OSError, ValueError, TypeError."""
    scheduler = _read(folder / "scheduler" / "scheduler_config.json")
    unet = _read(folder / "unet" / "config.json")
    params: dict[str, object] = {
        name: scheduler[own]
        for name, own in (
            ("linear_start", "beta_start"), ("linear_end", "beta_end"), ("timesteps", "num_train_timesteps"),
        )
        if own in scheduler
    }  # fmt: skip
    if scheduler.get("prediction_type") == "v_prediction":
        params["parameterization"] = "v"
    return {"model": {"params": {**params, "unet_config": {"params": _heads(unet)}}}}


def _heads(unet: Mapping[str, Any]) -> dict[str, object]:
    """How attention is split. diffusers calls the number of heads attention_head_dim, for the sake of old files."""
    heads, channels = unet.get("num_attention_heads") or unet.get("attention_head_dim"), unet.get("block_out_channels")
    if isinstance(heads, list) and len(set(heads)) == 1:
        heads = heads[0]
    if isinstance(heads, int):
        return {"num_heads": heads}
    if isinstance(heads, list) and isinstance(channels, list) and len(heads) == len(channels):
        widths = {width / count for width, count in zip(channels, heads, strict=True)}
        if len(widths) == 1:
            return {"num_head_channels": int(widths.pop())}
    return {}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; nothing if there is none."""
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises OSError, ValueError, TypeError."""
    with path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes")
    content = json.loads(data)
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} is no JSON object")
    return content
