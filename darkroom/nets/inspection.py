"""What a model of any kind tells without being loaded: the names and shapes of its tensors. No torch."""

import logging
from pathlib import Path
from typing import Any

from darkroom.errors import BadModelFile
from darkroom.nets.containers import container_of
from darkroom.nets.conversion import Copies, describe
from darkroom.nets.folders import read_folder, shape_of
from darkroom.nets.headers import read_header

log = logging.getLogger(__name__)

Shapes = dict[str, tuple[int, ...]]


def read_shapes(path: Path, copies: Copies | None = None) -> Shapes:
    """Names and shapes of the tensors of a safetensors file, a pickled one or a folder in diffusers' layout.

    `copies` remember those of pickled files. Raises BadModelFile.
    """
    if path.is_dir():
        return {name: shape_of(pieces) for name, pieces in read_folder(path).items()}
    if container_of(path) == "pickle":
        return _shapes(path, copies.describe(path) if copies else describe(path))
    try:
        header, begin = read_header(path)
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        size = path.stat().st_size
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadModelFile(f"{path.name}: is not a whole safetensors file: {error}") from error
    if begin + max(ends, default=0) > size:
        raise BadModelFile(f"{path.name}: is a safetensors file that was cut off")
    return _shapes(path, header)


def find_shapes(path: Path, copies: Copies | None = None) -> Shapes:
    """The same; nothing for what cannot be read. Loading it will say what is wrong with it, to whoever asks for it."""
    try:
        return read_shapes(path, copies)
    except BadModelFile as error:
        log.warning("%s", error)
        return {}


def _shapes(path: Path, header: dict[str, Any]) -> Shapes:
    try:
        return {name: tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, LookupError) as error:
        raise BadModelFile(f"{path.name}: is not a whole safetensors file: {error}") from error
