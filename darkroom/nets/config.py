"""The YAML that may lie beside a checkpoint, in the layout of CompVis' latent-diffusion or of Stability's
generative-models. Knows no tensors; no torch.

Only what the tensors themselves cannot tell is read: the noise schedule, what the network predicts, the latent's scale
and the number of attention heads. What a YAML leaves open, or all without one, is as its family was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml

from darkroom.errors import BadModelFile
from darkroom.nets.folder_config import INDEX, as_document

MAX_BYTES = 1 << 20

Prediction = Literal["epsilon", "v", "flow"]
"""What the network answers: the noise; v; or the way from the picture to the noise, of flow matching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a YAML says about a model; the defaults are those of Stable Diffusion 1.x.

    `scale` multiplies the autoencoder's latent, once `shift` was taken off it. `heads` or `head_channels` (one of them)
    splits the UNet's attention. With `probe` only the network itself can tell whether it predicts noise or v.
    `native_size` is the side in pixels that the model draws best; with a side above `largest_size` it no longer
    lays out a whole picture.
    """

    linear_start: float = 0.00085
    linear_end: float = 0.012
    timesteps: int = 1000
    scale: float = 0.18215
    shift: float = 0.0
    prediction: Prediction = "epsilon"
    probe: bool = False
    heads: int | None = 8
    head_channels: int | None = None
    native_size: int = 512
    largest_size: int | None = None


SIZE_OF_V = 768
"""Native size of the Stable Diffusion 2 models that predict v; those that predict noise have the size of 1.x."""

_LARGE = ModelConfig(scale=0.13025, heads=None, head_channels=64, native_size=1024)

PUBLISHED: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "sd1": ModelConfig(),
        "sd2": ModelConfig(heads=None, head_channels=64, probe=True, native_size=SIZE_OF_V),
        "sdxl": _LARGE,
        "refiner": _LARGE,
        "sd3": ModelConfig(scale=1.5305, shift=0.0609, prediction="flow", native_size=1024),
        "flux": ModelConfig(scale=0.3611, shift=0.1159, prediction="flow", native_size=1024),
    }
)
"""The families as they were published."""


def beside(checkpoint: Path) -> Path | None:
    """The YAML next to a checkpoint, if there is one; the index of a folder in diffusers' layout."""
    if checkpoint.is_dir():
        return checkpoint / INDEX
    config = checkpoint.with_suffix(".yaml")
    return config if config.is_file() else None


def read_config(path: Path | None, family: str = "sd1") -> ModelConfig:
    """Read a YAML; None gives the family as published. Raises BadModelFile if it is too large, malformed or out of
    range.
    """
    published = PUBLISHED.get(family, ModelConfig())
    if path is None:
        return published
    try:
        document = _parse(path)
        return _validated(_config(document, published), path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadModelFile(f"{path.name}: not a usable model configuration: {error}") from error


def _parse(path: Path) -> Mapping[str, object]:
    if path.name == INDEX:
        return as_document(path.parent)
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


def _config(document: Mapping[str, object], default: ModelConfig) -> ModelConfig:
    params = _inner(document, "model", "params")
    unet = _inner(params, "unet_config", "params") or _inner(params, "network_config", "params")
    discretization = _inner(params, "denoiser_config", "params", "discretization_config", "params")
    schedule = {**discretization, **params}
    head_channels = _count(unet, "num_head_channels")
    heads = _count(unet, "num_heads")
    if not (heads or head_channels):
        heads, head_channels = default.heads, default.head_channels
    prediction: Prediction = "v" if _says_v(params) else default.prediction
    native_size = ModelConfig().native_size if default.probe and prediction != "v" else default.native_size
    return replace(
        default,
        linear_start=_number(schedule, "linear_start", default.linear_start),
        linear_end=_number(schedule, "linear_end", default.linear_end),
        timesteps=_count(schedule, "timesteps") or _count(schedule, "num_timesteps") or default.timesteps,
        scale=_number(params, "scale_factor", default.scale),
        prediction=prediction,
        probe=False,
        heads=None if head_channels else heads,
        head_channels=head_channels,
        native_size=_count(_inner(document, "darkroom"), "native_size") or native_size,
        largest_size=_count(_inner(document, "darkroom"), "largest_size"),
    )


def _says_v(params: Mapping[str, object]) -> bool:
    """Whether the network predicts v: CompVis' layout has a parameter for it, the other one a class."""
    scaling = _inner(params, "denoiser_config", "params", "scaling_config").get("target")
    return params.get("parameterization") == "v" or str(scaling).endswith(".VScaling")


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
