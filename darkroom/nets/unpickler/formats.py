"""The two formats of pickled weights: torch's zip archives, and its chains of pickles from before version 1.6.

Both as `torch/serialization.py` writes them. Nothing in an archive is compressed, and nothing in it lies twice.
"""

import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from typing import Any

from darkroom.nets.unpickler.machine import Machine
from darkroom.nets.unpickler.names import shown
from darkroom.nets.unpickler.values import RefusedError, Storage

MAX_PICKLE_BYTES = 256 << 20
MAX_MEMBERS = 250_000


@dataclass(frozen=True, slots=True)
class Content:
    """What a file describes, and where each storage's bytes begin in it."""

    value: Any
    begins: Mapping[str, int]


def read(file: BufferedIOBase, size: int) -> Content:
    """Read a pickled file of either format. Raises RefusedError."""
    head = file.read(4)
    file.seek(0)
    return _read_archive(file, size) if head == b"PK\x03\x04" else _read_chain(file, size)


def _read_archive(file: BufferedIOBase, size: int) -> Content:
    members = _members(file, size)
    main = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(main) != 1:
        raise RefusedError("it is a zip archive, but not one of weights")
    root = main[0].split("/")[0]
    if f"{root}/constants.pkl" in members or any(name.startswith(f"{root}/code/") for name in members):
        raise RefusedError("it is a TorchScript archive, which is a program; only files of weights are read")
    strangers = [name for name in members if not name.startswith(f"{root}/")]
    if strangers:
        raise RefusedError(f"its archive holds {shown(strangers[0])}, which is not of its weights")
    order = members.get(f"{root}/byteorder")
    if order and _bytes_of(file, order, 16) != b"little":
        raise RefusedError("its numbers are stored with the high byte first")
    begin, length = members[main[0]]
    if length > MAX_PICKLE_BYTES:
        raise RefusedError(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
    machine = Machine(BytesIO(_bytes_of(file, (begin, length), length)), length)
    value = machine.run()
    if machine.left:
        raise RefusedError("there is something behind its pickle")
    for storage in machine.storages.values():
        member = members.get(f"{root}/data/{storage.key}")
        if member is None or member[1] < storage.nbytes:
            raise RefusedError(f"the numbers of storage {shown(storage.key)} are missing")
    return Content(value, {key: members[f"{root}/data/{key}"][0] for key in machine.storages})


def _bytes_of(file: BufferedIOBase, place: tuple[int, int], at_most: int) -> bytes:
    file.seek(place[0])
    data: bytes = file.read(min(place[1], at_most))
    return data


def _members(file: BufferedIOBase, size: int) -> dict[str, tuple[int, int]]:
    """Where each member's bytes begin and how many they are. Nothing is compressed, and nothing lies on another."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise RefusedError(f"its archive has more than {MAX_MEMBERS} members")
    found: dict[str, tuple[int, int]] = {}
    for entry in entries:
        _check_entry(entry, found)
        found[entry.filename] = (_data_begin(file, entry), entry.file_size)
    reached = 0
    for name, (begin, length) in sorted(found.items(), key=lambda item: item[1]):
        if begin < reached or begin + length > size:
            raise RefusedError(f"member {shown(name)} of its archive lies on another or beyond the end")
        reached = begin + length
    return found


def _check_entry(entry: zipfile.ZipInfo, found: Mapping[str, object]) -> None:
    name = entry.filename
    if name in found:
        raise RefusedError(f"its archive holds {shown(name)} twice")
    if entry.orig_filename != name or "\\" in name or name.startswith("/") or {"..", "", "."} & set(name.split("/")):
        raise RefusedError(f"its archive holds a member with the unusual name {shown(name)}")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 0x1:
        raise RefusedError(f"member {shown(name)} of its archive is compressed or encrypted; those of weights are not")


def _data_begin(file: BufferedIOBase, entry: zipfile.ZipInfo) -> int:
    """The first byte of a member, by its own header, which must name it as the archive's list does."""
    file.seek(entry.header_offset)
    head = file.read(30)
    if len(head) != 30 or head[:4] != b"PK\x03\x04":
        raise RefusedError("its archive is damaged")
    name_bytes, extra_bytes = struct.unpack("<HH", head[26:])
    if file.read(name_bytes) != entry.filename.encode():
        raise RefusedError(f"its archive calls member {shown(entry.filename)} by two names")
    begin: int = entry.header_offset + 30 + name_bytes + extra_bytes
    return begin


_MAGIC = 0x1950A86A20F9469CFC6C
_CHAIN_VERSION = 1001


def _read_chain(file: BufferedIOBase, size: int) -> Content:
    def load(left: int = MAX_PICKLE_BYTES) -> tuple[Any, Mapping[str, Storage]]:
        machine = Machine(file, min(left, size - file.tell()))
        return machine.run(), machine.storages

    if load(1024)[0] != _MAGIC or load(1024)[0] != _CHAIN_VERSION:
        raise RefusedError("it is a pickle, but not one of weights")
    system, _ = load(4096)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("its numbers are stored with the high byte first")
    value, storages = load()
    keys, _ = load()
    if not isinstance(keys, list) or len(keys) != len(set(keys)) or set(keys) != set(storages):
        raise RefusedError("its list of storages is not of those that it uses")
    begins = {}
    for key in keys:
        count = struct.unpack("<q", file.read(8))[0]
        if count != storages[key].count:
            raise RefusedError(f"the numbers of storage {shown(key)} are fewer or more than it says")
        begins[key] = file.tell()
        file.seek(storages[key].nbytes, os.SEEK_CUR)
    if file.tell() != size:
        raise RefusedError("it ends too early, or there is something behind its weights")
    return Content(value, begins)
