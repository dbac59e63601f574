"""What a model's file or folder tells to somebody who asks what it is. Loads nothing; no torch."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from darkroom.errors import BadModelFile
from darkroom.nets.architecture import Family, conditioning_of, identify, text_width
from darkroom.nets.catalog import Hashes, old_hash
from darkroom.nets.config import beside, read_config
from darkroom.nets.containers import container_of
from darkroom.nets.conversion import describe
from darkroom.nets.folders import read_folder, shape_of, state_of
from darkroom.nets.headers import metadata_of, read_header
from darkroom.nets.unpickler.values import TREE

_THUMBNAIL = "modelspec.thumbnail"


def describe_model(path: Path, *, with_tensors: bool = False, hashing: bool = True) -> dict[str, Any]:
    """Facts by name, as plain values. Raises BadModelFile."""
    try:
        held, tensors, metadata = _contents(path)
        size = state_of(path)[0]
        digest = Hashes(None).get(path) if hashing else None
        facts = {
            "file": str(path),
            "kept_as": held,
            "bytes": size,
            **_kind(path, {name: shape for name, (shape, _) in tensors.items()}),
            "tensors": len(tensors),
            "numbers": _numbers(tensors),
            "sha256": digest,
            "short_hash": digest[:10] if digest else None,
            "old_hash": old_hash(path),
            "thumbnail_bytes": len(str(metadata.pop(_THUMBNAIL, ""))) or None,
            "metadata": metadata,
        } | (
            {"names": {name: f"{kind} {list(shape)}" for name, (shape, kind) in tensors.items()}}
            if with_tensors
            else {}
        )
    except OSError as error:
        raise BadModelFile(f"{path.name}: cannot be read: {error.strerror}") from error
    if with_tensors:
        facts["names"] = {name: f"{kind} {list(shape)}" for name, (shape, kind) in tensors.items()}
    return facts


def _contents(path: Path) -> tuple[str, dict[str, tuple[tuple[int, ...], str]], dict[str, Any]]:
    """How a model is kept, its tensors' shapes and number formats, and its metadata."""
    if path.is_dir():
        found = read_folder(path)
        return "a folder in diffusers' layout", {k: (shape_of(v), v[0].stored.kind) for k, v in found.items()}, {}
    if container_of(path) == "pickle":
        held, header = "a pickled file", describe(path)
    else:
        held, header = "safetensors", _header(path)
    tensors = {
        name: (tuple(entry["shape"]), str(entry["dtype"])) for name, entry in header.items() if name != "__metadata__"
    }
    return held, tensors, {name: value for name, value in metadata_of(header).items() if name != TREE}


def _header(path: Path) -> dict[str, Any]:
    try:
        return read_header(path)[0]
    except (ValueError, TypeError, RecursionError) as error:
        raise BadModelFile(f"{path.name}: is not a whole safetensors file: {error}") from error


def _kind(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    architecture = identify(shapes)
    if architecture not in get_args(Family):
        return {"architecture": architecture}
    config = beside(path)
    settings = read_config(config, architecture)
    return {
        "architecture": architecture,
        "sees_beside_the_latent": conditioning_of(shapes),
        "text_width": text_width(shapes),
        "predicts": "asks the network itself" if settings.probe else settings.prediction,
        "native_size": settings.native_size,
        "configuration": str(config) if config else None,
    }


def _numbers(tensors: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, int]:
    """How many numbers there are of each format."""
    counted: Counter[str] = Counter()
    for shape, kind in tensors.values():
        counted[kind] += math.prod(shape)
    return dict(counted.most_common())
