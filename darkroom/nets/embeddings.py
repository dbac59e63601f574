"""Textual-inversion embeddings: a few vectors that stand in for the tokens of a name (Gal et al. 2022,
arXiv:2208.01618). Reads every file format that they come in; knows nothing of prompts.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.conversion import Copies
from darkroom.nets.pickles import read_tensors
from darkroom.nets.shelves import PICTURES

MAX_BYTES = 64 << 20
MAX_PIXELS = 16_000_000
MAX_VECTORS = 75
"""As many as one chunk of a prompt holds."""

_CHUNK = "sd-ti-embedding"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """`table` is float32 `[n, width]`; where it is for two text encoders, CLIP's columns come before OpenCLIP's.

    `name` is what a picture says it is called; `step` and the checkpoint are notes of its training.
    """

    table: Tensor
    name: str | None = None
    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None

    @property
    def vectors(self) -> int:
        """How many tokens it takes the place of."""
        return len(self.table)

    @property
    def width(self) -> int:
        """Width of its vectors, all text encoders together."""
        return self.table.shape[1]


def read_embedding(path: Path, copies: Copies | None = None) -> Embedding | None:
    """Read one file; None for a picture that holds no embedding. Raises BadModelFile.

    `copies` keep what pickled ones are turned into.
    """
    try:
        picture = path.suffix.lower() in PICTURES
        content = _from_picture(path) if picture else read_tensors(path, MAX_BYTES, copies)
        embedding = make_embedding(content) if content is not None else None
    except (OSError, ValueError, TypeError, KeyError, LookupError, RecursionError, zlib.error) as error:
        raise BadModelFile(f"{path.name}: not an embedding: {error}") from error
    if embedding and embedding.vectors > MAX_VECTORS:
        raise BadModelFile(f"{path.name}: {embedding.vectors} vectors; at most {MAX_VECTORS} fit into a prompt")
    return embedding


def make_embedding(content: Mapping[str, Any]) -> Embedding:
    """The embedding that a file's content is. Raises ValueError, TypeError, KeyError."""
    notes = {key: content.get(key) for key in ("step", "sd_checkpoint", "sd_checkpoint_name", "name")}
    if "string_to_param" in content:
        return Embedding(
            table=_vectors(_only(content["string_to_param"])),
            name=_text(notes["name"]),
            step=notes["step"] if isinstance(notes["step"], int) else None,
            sd_checkpoint=_text(notes["sd_checkpoint"]),
            sd_checkpoint_name=_text(notes["sd_checkpoint_name"]),
        )
    if "clip_g" in content and "clip_l" in content:
        first, second = _vectors(content["clip_l"]), _vectors(content["clip_g"])
        if len(first) != len(second):
            raise ValueError("clip_g and clip_l differ in length")
        return Embedding(table=torch.cat([first, second], dim=1))
    return Embedding(table=_vectors(_only(content)))


def _only(tensors: object) -> object:
    if not isinstance(tensors, Mapping) or len(tensors) != 1:
        raise ValueError("it must hold exactly one tensor")
    return next(iter(tensors.values()))


def _vectors(value: object) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError("no vectors of floating-point numbers")
    vectors = value.detach()[None] if value.dim() == 1 else value.detach()
    if vectors.dim() != 2 or not vectors.numel():
        raise ValueError(f"vectors of shape {list(vectors.shape)}")
    return vectors.float().clone()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _from_picture(path: Path) -> dict[str, Any] | None:
    """What a picture carries in a text chunk, or else in the low bits of its pixels."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            chunk = getattr(image, "text", image.info).get(_CHUNK)
            if isinstance(chunk, str) and len(chunk) <= 2 * MAX_BYTES:
                return _from_json(base64.b64decode(chunk))
            return _from_pixels(np.asarray(image.convert("RGB")).astype(np.uint8))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _from_json(data: bytes) -> dict[str, Any]:
    def decode(entry: dict[str, Any]) -> Any:
        return torch.tensor(entry["TORCHTENSOR"]) if "TORCHTENSOR" in entry else entry

    content = json.loads(data, object_hook=decode)
    if not isinstance(content, dict):
        raise TypeError("not a JSON object")
    return content


def _from_pixels(pixels: NDArray[np.uint8]) -> dict[str, Any] | None:
    """Low nibbles left of the picture, high ones right of it, zlib-compressed; None if there are no such blocks."""
    dark = (pixels == 0).all(axis=2)
    columns, rows = np.flatnonzero(~dark.all(axis=0)), np.flatnonzero(~dark.all(axis=1))
    if not len(columns):
        return None
    cropped = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & np.uint8(0x0F)
    empty = np.flatnonzero((cropped == 0).all(axis=(0, 2)))
    if len(empty) < 2:
        return None
    low, high = cropped[:, : empty[0]], cropped[:, empty[-1] + 1 :]
    if low.shape != high.shape or not low.size:
        return None
    nibbles = [_unmasked(block.reshape(-1)) for block in (low, high)]
    inflater = zlib.decompressobj()
    return _from_json(inflater.decompress((nibbles[0] | nibbles[1] << 4).tobytes(), MAX_BYTES))


def _unmasked(nibbles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Exclusive-or with the low bits of a linear congruential generator (Knuth's multiplier 1664525) begun at 0."""
    seed, mask = 0, bytearray()
    for _ in range(nibbles.size):
        seed = (1664525 * seed + 1013904223) % 2**32
        mask.append(seed % 255 & 0x0F)
    return np.bitwise_xor(nibbles, np.frombuffer(bytes(mask), dtype=np.uint8))
