"""The YAML that may lie beside a checkpoint, in the layout of CompVis' latent-diffusion. Knows no tensors; no torch.

Only what the tensors themselves cannot tell is read: the noise schedule, what the network predicts, the latent's scale
and the number of attention heads. Without a YAML a checkpoint is taken for Stable Diffusion 1.x as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from darkroom.errors import BadModelFile

MAX_BYTES = 1 << 20

Prediction = Literal["epsilon", "v"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a YAML says about a model; the defaults are those of Stable Diffusion 1.x.

    `scale` multiplies the autoencoder's latent. `heads` or `head_channels` (one of them) splits the UNet's attention.
    `native_size` is the side in pixels that the model draws best; with a side above `largest_size` it no longer
    lays out a whole picture.
    """

    linear_start: float = 0.00085
    linear_end: float = 0.012
    timesteps: int = 1000
    scale: float = 0.18215
    prediction: Prediction = "epsilon"
    heads: int | None = 8
    head_channels: int | None = None
    native_size: int = 512
    largest_size: int | None = None


def beside(checkpoint: Path) -> Path | None:
    """The YAML next to a checkpoint, if there is one."""
    config = checkpoint.with_suffix(".yaml")
    return config if config.is_file() else None


def read_config(path: Path | None) -> ModelConfig:
    """Read a YAML; None gives the defaults. Raises BadModelFile if it is too large, malformed or out of range."""
    if path is None:
        return ModelConfig()
    try:
        document = _parse(path)
        return _validated(_config(document), path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadModelFile(f"{path.name}: not a usable model configuration: {error}") from error


def _parse(path: Path) -> Mapping[str, object]:
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return _section(yaml.safe_load(text), "the document")


def _section(value: object, name: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping")
    return value


def _inner(parent: Mapping[str, object], *names: str) -> Mapping[str, object]:
    for name in names:
        parent = _section(parent.get(name), name)
    return parent


def _number(section: Mapping[str, object], name: str, default: float) -> float:
    value = section.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{name} must be a number")
    return float(value)  # YAML 1.1 reads 1e-4 as a string


def _count(section: Mapping[str, object], name: str) -> int | None:
    """A positive whole number, or None where the name is missing or -1 (the original's way to write "unset")."""
    value = section.get(name)
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError(f"{name} must be a whole number above zero")
    return value


def _config(document: Mapping[str, object]) -> ModelConfig:
    params = _inner(document, "model", "params")
    unet = _inner(params, "unet_config", "params")
    head_channels = _count(unet, "num_head_channels")
    default = ModelConfig()
    return ModelConfig(
        linear_start=_number(params, "linear_start", default.linear_start),
        linear_end=_number(params, "linear_end", default.linear_end),
        timesteps=_count(params, "timesteps") or default.timesteps,
        scale=_number(params, "scale_factor", default.scale),
        prediction="v" if params.get("parameterization") == "v" else "epsilon",
        heads=None if head_channels else _count(unet, "num_heads") or default.heads,
        head_channels=head_channels,
        native_size=_count(_inner(document, "darkroom"), "native_size") or default.native_size,
        largest_size=_count(_inner(document, "darkroom"), "largest_size"),
    )


def _validated(config: ModelConfig, path: Path) -> ModelConfig:
    allowed = {
        "linear_start < linear_end, both in 0..1": 0 < config.linear_start < config.linear_end < 1,
        "timesteps in 1..100000": config.timesteps <= 100_000,
        "scale_factor in 0.001..1000": 0.001 <= config.scale <= 1000,
        "native_size a multiple of 8 in 8..4096": config.native_size <= 4096 and config.native_size % 8 == 0,
    }
    broken = [rule for rule, holds in allowed.items() if not holds]
    if broken:
        raise BadModelFile(f"{path.name}: must have {'; '.join(broken)}")
    return config
