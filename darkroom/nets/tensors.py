"""Tensors by name, read when they are asked for: of one safetensors file, or of a model in diffusers' layout."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.containers import container_of
from darkroom.nets.folders import Piece, read_folder, shape_of
from darkroom.nets.tensorfile import NAMES, MappedFile


class Rows(Protocol):
    """A tensor of which some rows may be read."""

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows from `rows.start` up to `rows.stop`."""


class Tensors(Protocol):
    """Open tensors: their shapes and number formats (as safetensors calls them) by name, and themselves."""

    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]

    def get_tensor(self, name: str) -> Tensor:
        """A tensor; it may be a mapped part of a file."""

    def get_slice(self, name: str) -> Rows:
        """A tensor's rows."""

    def close(self) -> None:
        """Let go of the files."""


class SafeFile:
    """A safetensors file, memory-mapped. `name` is what messages call it, if not by its own name."""

    def __init__(self, path: Path, name: str = "") -> None:
        """Open and check the header. Raises BadModelFile for anything but a whole safetensors file."""
        name = name or path.name
        kind = container_of(path)
        if kind != "safetensors":
            raise BadModelFile(f"{name}: is a pickled file, which is not opened in its place")
        try:
            self._file = MappedFile(path)
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise BadModelFile(f"{name}: is not a whole safetensors file: {error}") from error
        self.shapes = {key: form.shape for key, form in self._file.forms.items()}
        self.kinds = {key: NAMES[form.dtype] for key, form in self._file.forms.items()}

    def get_tensor(self, name: str) -> Tensor:
        return self._file.get(name)

    def get_slice(self, name: str) -> Rows:
        return self._file.get(name)

    def close(self) -> None:
        self._file.close()


class Renamed:
    """Tensors under other names; `rename` makes them of their own. Raises what `rename` raises."""

    def __init__(self, tensors: Tensors, rename: Callable[[str], str]) -> None:
        self._tensors = tensors
        self._own = {rename(name): name for name in tensors.shapes}
        self.shapes = {name: tensors.shapes[own] for name, own in self._own.items()}
        self.kinds = {name: tensors.kinds[own] for name, own in self._own.items()}

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors.get_tensor(self._own[name])

    def get_slice(self, name: str) -> Rows:
        return self._tensors.get_slice(self._own[name])

    def close(self) -> None:
        self._tensors.close()


class FolderFiles:
    """A model in diffusers' layout, its tensors under the names that a single-file checkpoint gives them."""

    def __init__(self, folder: Path) -> None:
        """Open every file. Raises BadModelFile."""
        self._pieces = read_folder(folder)
        used = dict.fromkeys(piece.stored.file for pieces in self._pieces.values() for piece in pieces)
        self._files: Mapping[Path, SafeFile] = {
            file: SafeFile(file, f"{folder.name}/{file.relative_to(folder)}") for file in used
        }
        self.shapes = {name: shape_of(pieces) for name, pieces in self._pieces.items()}
        self.kinds = {name: pieces[0].stored.kind for name, pieces in self._pieces.items()}

    def get_tensor(self, name: str) -> Tensor:
        pieces = self._pieces[name]
        if len(pieces) == 1:
            tensor = self._files[pieces[0].stored.file].get_tensor(pieces[0].stored.name)
            return tensor.t().contiguous() if pieces[0].turned else tensor
        return torch.cat([self._read(piece, piece.start, piece.stop) for piece in pieces])

    def get_slice(self, name: str) -> Rows:
        return _PiecedRows(self, name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows of a tensor."""
        touched = [piece for piece in self._pieces[name] if piece.start < stop and piece.stop > start]
        return torch.cat([self._read(piece, max(start, piece.start), min(stop, piece.stop)) for piece in touched])

    def _read(self, piece: Piece, start: int, stop: int) -> Tensor:
        file = self._files[piece.stored.file]
        shift = piece.first - piece.start
        return file.get_slice(piece.stored.name)[start + shift : stop + shift]

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class _PiecedRows:
    def __init__(self, files: FolderFiles, name: str) -> None:
        self._files = files
        self._name = name

    def __getitem__(self, rows: slice) -> Tensor:
        return self._files.rows(self._name, rows.start or 0, rows.stop)
