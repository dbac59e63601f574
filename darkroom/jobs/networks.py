"""The small networks and autoencoders that the engine can use beside a checkpoint, as others see them. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterInfo:
    """A file of the LoRA family. `name` is its key; `alias` another name for it, from its metadata.

    `activation_text` are the words that it was trained to answer to, `preferred_weight` the strength that it is liked
    at; both are told by the JSON beside the file, which web pages write.
    """

    name: str
    alias: str
    filename: str
    metadata: Mapping[str, Any]
    activation_text: str = ""
    preferred_weight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeInfo:
    """An autoencoder that has a file of its own; `name` is the file's and its key. One that is used `always` is used
    with every checkpoint, whatever else is asked for.
    """

    name: str
    filename: str
    always: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingInfo:
    """A textual-inversion embedding: `vectors` of `width` (that of all text encoders together).

    `short_hash` are the first twelve digits of its file's SHA-256. The rest are notes of its training.
    """

    name: str
    filename: str
    short_hash: str
    vectors: int
    width: int
    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkInfo:
    """A hypernetwork's file."""

    name: str
    filename: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalerInfo:
    """A network that enlarges pictures. `family` says how its pictures are cut up and by which option.

    `filename` is None where there is no file: `wanted` says where it should be, `address` where it is published.
    `scale` is None where only the file can tell.
    """

    name: str
    family: str
    filename: str | None
    wanted: str
    address: str = ""
    scale: float | None = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRestorerInfo:
    """A network that restores faces; `filename` is None where there is no file: `wanted` says where it should be."""

    name: str
    filename: str | None
    wanted: str


def lack_of(info: UpscalerInfo) -> str | None:
    """Why an upscaler that is listed cannot be used; None if it can."""
    if info.family == "LDSR":
        return "enlarging by latent diffusion is not supported; the other upscalers are"
    if info.filename is None:
        source = f", published at {info.address}" if info.address else ""
        return f"its file is missing: {info.wanted}{source}"
    return None
