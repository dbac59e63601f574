"""Whole files of tensors, safetensors or pickled, told apart by what they hold and not by what they are called.

No pickle is opened in this process: one of its own makes safetensors of it first, see `conversion`.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.containers import container_of
from darkroom.nets.conversion import Copies, convert
from darkroom.nets.unpickler.values import TREE

MAX_BYTES = 16 << 30

_WRAPPERS = ("state_dict", "params_ema", "params-ema", "params", "model", "net", "g_ema")
"""Where trainers of upscalers and face restorers put the weights, the best first."""


def read_state_dict(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """The weights of any kind of file (`.safetensors`, `.pth`, `.pt`, `.ckpt`, `.bin`) by name, on the CPU.

    Of several sets of weights the averaged one is taken. Raises BadModelFile, whatever is wrong with the file.
    """
    content: Mapping[Any, Any] = read_content(path, max_bytes)
    for _ in range(2):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        content = content if inner is None else inner
    weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights or not all(isinstance(name, str) for name in weights):
        raise BadModelFile(f"{path.name}: holds no tensors by name")
    return weights


def read_tensors(path: Path, max_bytes: int, copies: Copies | None = None) -> dict[str, Any]:
    """A file's mapping of names to tensors (or, in a pickle, to plain values). Raises BadModelFile."""
    content = read_content(path, max_bytes, copies)
    if not all(isinstance(name, str) for name in content):
        raise BadModelFile(f"{path.name}: holds no tensors by name")
    return content


def read_content(path: Path, max_bytes: int, copies: Copies | None = None) -> dict[Any, Any]:
    """A file's mapping, whatever its keys are; of a pickled one what is under "state_dict". Raises BadModelFile.

    `copies` keep what pickled files are turned into, for those that are read often.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadModelFile(f"{path.name}: cannot be read: {error.strerror}") from error
    if size > max_bytes:
        raise BadModelFile(f"{path.name}: {size} bytes, at most {max_bytes} are read")
    if container_of(path) == "safetensors":
        return _read(path, path.name)
    if copies is not None:
        return _read(copies.get(path), path.name)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as target:
        convert(path, target, max_bytes)
        return _read(Path(target.name), path.name)


def _read(path: Path, name: str) -> dict[Any, Any]:
    """All of a safetensors file; the mapping that its metadata describe if it was pickled before."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Copies: mapped pages would change, or vanish, with the file.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118  not a mapping
            metadata = file.metadata() or {}
        content = _grown(json.loads(metadata[TREE]), tensors) if TREE in metadata else tensors
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadModelFile(f"{name}: is not a whole safetensors file: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise BadModelFile(f"{name}: holds no tensors by name")
    return content


def _grown(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The values of a tree as `unpickler.Plan` writes it."""
    match tree:
        case {"d": pairs}:
            return {key: _grown(value, tensors) for key, value in pairs}
        case {"l": values}:
            return [_grown(value, tensors) for value in values]
        case {"t": name}:
            return tensors[name]
    return tree
