"""Small files of tensors, safetensors or pickled, told apart by what they hold and not by what they are called.

A pickle is read by torch's own reader of bare weights, which builds tensors and plain containers and nothing else.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from darkroom.errors import BadModelFile

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_tensors(path: Path, max_bytes: int) -> dict[str, Any]:
    """A file's mapping of names to tensors (or, in a pickle, to plain values). Raises BadModelFile."""
    content = read_content(path, max_bytes)
    if not all(isinstance(name, str) for name in content):
        raise BadModelFile(f"{path.name}: holds no tensors by name")
    nested = content.get("state_dict")
    return nested if isinstance(nested, dict) else content


def read_content(path: Path, max_bytes: int) -> dict[Any, Any]:
    """A file's mapping, whatever its keys are. Raises BadModelFile."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BadModelFile(f"{path.name}: {size} bytes, at most {max_bytes} are read")
        with path.open("rb") as file:
            pickled = file.read(4).startswith(_PICKLES)
        if zipfile.is_zipfile(path):
            _refuse_bombs(path, max_bytes)
        content = torch.load(path, map_location="cpu", weights_only=True) if pickled else load_file(path)
    except (
        OSError,
        ValueError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise BadModelFile(f"{path.name}: cannot be read as tensors: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise BadModelFile(f"{path.name}: holds no tensors by name")
    return content


def _refuse_bombs(path: Path, max_bytes: int) -> None:
    """Refuse an archive that would unpack to more than may be read."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max_bytes:
        raise BadModelFile(f"{path.name}: unpacks to {unpacked} bytes, at most {max_bytes} are read")
