"""What kind of file a file is, by its first bytes and never by its name. Reads a few bytes; no torch."""

import os
from pathlib import Path
from typing import Literal

from darkroom.errors import BadModelFile

Container = Literal["safetensors", "pickle"]

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_OTHERS = (
    (b"version https://git-lfs", "a git-lfs pointer; the model itself was not downloaded"),
    (b"GGUF", "a GGUF file, which is not read"),
    (b"<!doctype", "a web page; what was downloaded is not the model"),
    (b"<html", "a web page; what was downloaded is not the model"),
    (b"Rar!", "a Rar archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x08", "an ONNX file, which is not read"),
)


def container_of(path: Path) -> Container:
    """How a file holds its tensors. Raises BadModelFile, which says what it is instead where that can be told."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BadModelFile(f"{path.name}: cannot be read: {error.strerror}") from error
    if head.startswith(_PICKLES):
        return "pickle"
    header_bytes = int.from_bytes(head[:8], "little")
    if 2 <= header_bytes <= size - 8 and head[8:9] == b"{":
        return "safetensors"
    raise BadModelFile(f"{path.name}: is {_other(head, size)}")


def _other(head: bytes, size: int) -> str:
    if not size:
        return "empty"
    if head[8:9] == b"{":
        return "a safetensors file that was cut off"
    lower = head.lstrip().lower()
    found = (what for begin, what in _OTHERS if lower.startswith(begin.lower()))
    return next(found, "neither a safetensors file nor a pickled one")
