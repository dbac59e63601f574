"""Safetensors files read and written by the piece: of files of any size, a few megabytes are in memory at once.

`TensorFile` maps nothing: pages of a mapped file count as the process's own memory. `MappedFile` does, for readers who
want whole tensors and let go of them soon. Knows names, number formats and bytes; no architecture.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Protocol, Self

import torch
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.headers import read_header
from darkroom.nets.unpickler.values import TREE

FORMATS: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": torch.uint64,
        "U32": torch.uint32,
        "U16": torch.uint16,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
NAMES: Mapping[torch.dtype, str] = MappingProxyType({dtype: name for name, dtype in FORMATS.items()})

_ALIGNMENT = 8
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor's number format and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.count * self.dtype.itemsize


class Source(Protocol):
    """Open tensors: `forms` by name in a fixed order, the `notes` that came with them, and what messages call them."""

    name: str
    forms: dict[str, Form]
    notes: Mapping[str, str]

    def read(self, name: str, first: int = 0, count: int | None = None) -> Tensor:
        """`count` numbers of a tensor from the `first` on, flat; all of them by default. The caller may change them."""


class TensorFile:
    """An open safetensors file: `forms` by name in the order of the file, and the `notes` (texts) of its header.

    A context manager. May be read from one thread at a time.
    """

    __slots__ = ("_begins", "_file", "forms", "name", "notes")

    def __init__(self, path: Path, name: str = "") -> None:
        """Open and check the header; errors call the file `name`. Raises BadModelFile for anything but a whole file."""
        self.name = name or path.name
        try:
            self.forms, self._begins, self.notes = _contents(path)
            self._file: BinaryIO = path.open("rb", buffering=0)
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise BadModelFile(f"{self.name}: is not a whole safetensors file: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str, first: int = 0, count: int | None = None) -> Tensor:
        """`count` numbers of a tensor from the `first` on, flat; all of them by default. Raises BadModelFile."""
        form = self.forms[name]
        count = form.count - first if count is None else count
        size = form.dtype.itemsize
        data = bytearray(count * size)
        self._fill(memoryview(data), self._begins[name] + first * size)
        return torch.frombuffer(data, dtype=form.dtype) if count else torch.empty(0, dtype=form.dtype)

    def _fill(self, target: memoryview, place: int) -> None:
        try:
            while target:
                got = os.preadv(self._file.fileno(), [target], place)
                if not got:
                    raise BadModelFile(f"{self.name}: became shorter while it was read")
                target, place = target[got:], place + got
        except OSError as error:
            raise BadModelFile(f"{self.name}: cannot be read: {error}") from error


class MappedFile:
    """A safetensors file mapped into memory: `forms` by name in the order of the file, and the `notes` of its header.

    What `get` gives are views of the file that keep the mapping alive. The library of safetensors leaks some small
    objects with each tensor that it gives (0.8 with torch 2.13): megabytes in a server that changes models all day.
    """

    __slots__ = ("_begins", "_map", "forms", "notes")

    def __init__(self, path: Path) -> None:
        """Open and check the header. Raises OSError, and ValueError, TypeError, LookupError or RecursionError for
        anything but a whole safetensors file.
        """
        self.forms, self._begins, self.notes = _contents(path)
        with path.open("rb") as file:
            self._map: mmap.mmap | None = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def get(self, name: str) -> Tensor:
        """A tensor as it lies in the file. Raises ValueError after `close`."""
        if self._map is None:
            raise ValueError("the file is closed")
        form = self.forms[name]
        if not form.count:
            return torch.empty(form.shape, dtype=form.dtype)
        flat = torch.frombuffer(self._map, dtype=form.dtype, count=form.count, offset=self._begins[name])
        return flat.reshape(form.shape)

    def close(self) -> None:
        """Let go of the mapping, which ends with the last tensor of it."""
        self._map = None


def write_tensors(file: BinaryIO, forms: Mapping[str, Form], notes: Mapping[str, str], pieces: Iterable[Tensor]) -> str:
    """Write a safetensors file: the header, then the numbers as they come. Gives the file's SHA-256. Raises OSError.

    `pieces` are flat and follow each other as the tensors of `forms` do, in their number formats.
    """
    header = _header(forms, notes)
    file.write(header)
    digest = hashlib.sha256(header)
    wanted = sum(form.nbytes for form in forms.values())
    for piece in pieces:
        block = piece.contiguous().view(torch.uint8).numpy()
        file.write(block.data)
        digest.update(block.data)
        wanted -= block.nbytes
    if wanted:
        raise ValueError(f"the tensors and their pieces differ by {wanted} bytes")
    return digest.hexdigest()


def _header(forms: Mapping[str, Form], notes: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(notes)} if notes else {}
    end = 0
    for name, form in forms.items():
        begin, end = end, end + form.nbytes
        entries[name] = {"dtype": NAMES[form.dtype], "shape": list(form.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _contents(path: Path) -> tuple[dict[str, Form], dict[str, int], Mapping[str, str]]:
    """Every tensor's form and where in the file it begins, in the order of the file, and the notes of its header.

    Raises what a file that is no whole safetensors file makes the parts of it raise.
    """
    header, start = read_header(path)
    notes = _notes(header.pop("__metadata__", {}))
    places = sorted((_place(entry), name) for name, entry in header.items())
    forms = {name: _form(header[name]) for _, name in places}
    _check_places([(*place, forms[name].nbytes) for place, name in places], path.stat().st_size - start)
    return forms, {name: start + begin for (begin, _), name in places}, notes


def _notes(stored: object) -> dict[str, str]:
    if not isinstance(stored, dict):
        raise TypeError("__metadata__ is no mapping")
    # What the copy of a pickled file keeps of it is nothing that somebody noted.
    return {key: value for key, value in stored.items() if isinstance(value, str) and key != TREE}


def _place(entry: Mapping[str, Any]) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    if type(begin) is not int or type(end) is not int:
        raise TypeError("data_offsets are no whole numbers")
    return begin, end


def _form(entry: Mapping[str, Any]) -> Form:
    shape = entry["shape"]
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise TypeError("a shape is no list of whole numbers")
    if entry["dtype"] not in FORMATS:
        raise ValueError(f"number format {entry['dtype']!r:.20} is unknown")
    return Form(FORMATS[entry["dtype"]], tuple(shape))


def _check_places(places: Iterable[tuple[int, int, int]], size: int) -> None:
    """Tensors must follow each other without gaps and fill the file. `places` are begin, end, bytes."""
    expected = 0
    for begin, end, nbytes in places:
        if begin != expected or end - begin != nbytes:
            raise ValueError("its tensors overlap, leave gaps or have other sizes than their shapes")
        expected = end
    if expected != size:
        raise ValueError(f"its tensors end at byte {expected} of {size}")
