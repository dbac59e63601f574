"""Pickles that do what no file of weights does, written by hand; each would leave a mark if it ran."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(module: str, member: str) -> bytes:
    return f"c{module}\n{member}\n".encode()


def code(mark: Path) -> bytes:
    return text(f"__import__('pathlib').Path({str(mark)!r}).touch()")


def shell(mark: Path) -> bytes:
    return text(f"touch {mark}")


def v2(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def v4(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def nested(mark: Path, module: str, member: str, wrap: bytes = b"") -> bytes:
    inner = v2(name("builtins", "eval") + code(mark) + b"\x85R")
    return v2(name(module, member) + wrap + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R")


def in_file_object(mark: Path) -> bytes:
    """pickle.load(io.BytesIO(...))."""
    inner = v2(name("posix", "system") + shell(mark) + b"\x85R")
    held = name("_io", "BytesIO") + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R"
    return v2(name("_pickle", "load") + held + b"\x85R")


LIVE: Mapping[str, Callable[[Path], bytes]] = {
    "reduce to os.system": lambda mark: v2(name("posix", "system") + shell(mark) + b"\x85R"),
    "reduce to os.system of another module": lambda mark: v2(name("os", "system") + shell(mark) + b"\x85R"),
    "builtins.eval": lambda mark: v2(name("builtins", "eval") + code(mark) + b"\x85R"),
    "builtins.exec": lambda mark: v2(name("builtins", "exec") + code(mark) + b"\x85R"),
    "python 2's builtins": lambda mark: v2(name("__builtin__", "eval") + code(mark) + b"\x85R"),
    "eval inside a dictionary": lambda mark: v2(
        b"}" + text("a") + name("builtins", "eval") + code(mark) + b"\x85Rs"
    ),
    "eval thrown away": lambda mark: v2(name("builtins", "eval") + code(mark) + b"\x85R0}"),
    "a name from the stack": lambda mark: v4(text("os") + text("system") + b"\x93" + shell(mark) + b"\x85R"),
    "a name from memory": lambda mark: v4(
        text("system") + b"q\x00" + b"0" + text("os") + b"h\x00" + b"\x93" + shell(mark) + b"\x85R"
    ),
    "a function that was memorised": lambda mark: v4(
        text("os") + text("system") + b"\x93\x94" + b"0" + b"h\x00" + shell(mark) + b"\x85R"
    ),
    "a dotted name": lambda mark: v4(text("shutil") + text("os.system") + b"\x93" + shell(mark) + b"\x85R"),
    "a dotted name in a module of the list": lambda mark: v4(
        text("collections") + text("_sys.modules.get") + b"\x93" + text("os") + b"\x85R"
        + b"\x94" + b"0" + text("builtins") + text("getattr") + b"\x93" + b"h\x00" + text("system") + b"\x86R"
        + shell(mark) + b"\x85R"
    ),
    "a walk by getattr": lambda mark: v2(
        name("builtins", "getattr") + name("builtins", "__import__") + text("os") + b"\x85R" + text("system")
        + b"\x86R" + shell(mark) + b"\x85R"
    ),
    "map, which calls when it is gone through": lambda mark: v2(
        name("builtins", "list") + name("builtins", "map") + name("builtins", "eval") + b"]" + code(mark) + b"a"
        + b"\x86R" + b"\x85R"
    ),
    "a nested pickle": lambda mark: nested(mark, "_pickle", "loads"),
    "a nested pickle in a file object": in_file_object,
    "marshalled code": lambda mark: v2(
        name("builtins", "eval")
        + text(f"__import__('marshal').loads(__import__('marshal').dumps(open({str(mark)!r}, 'w')and 1))")
        + b"\x85R"
    ),
    "a state that is set by a function of the file": lambda mark: v2(
        name("argparse", "Namespace") + b")\x81}" + text("__setstate__") + name("posix", "system") + b"sb"
        + shell(mark) + b"b"
    ),
    "an old instance": lambda mark: v2(b"(" + shell(mark) + b"iposix\nsystem\n"),
    "an old object": lambda mark: v2(b"(" + name("posix", "system") + shell(mark) + b"o"),
    "a partial function": lambda mark: v2(
        name("functools", "partial") + name("posix", "system") + shell(mark) + b"\x86R)R"
    ),
    "a method caller": lambda mark: v2(
        name("operator", "methodcaller") + text("touch") + b"\x85R"
        + name("pathlib", "Path") + text(str(mark)) + b"\x85R" + b"\x85R"
    ),
}  # fmt: skip
"""Pickles that leave their mark when an ordinary unpickler reads them."""

DEAD: Mapping[str, Callable[[Path], bytes]] = {
    "torch.load": lambda mark: v2(name("torch", "load") + shell(mark) + b"\x85R"),
    "torch.hub": lambda mark: v2(name("torch.hub", "load_state_dict_from_url") + text("http://127.0.0.1/") + b"\x85R"),
    "a class of torch's": lambda mark: v2(name("torch.nn.modules.linear", "Linear") + b")\x81}b"),
    "numpy's loader": lambda mark: v2(name("numpy", "load") + shell(mark) + b"\x85R"),
    "a callable where a kind of storage stands": lambda mark: v2(
        b"(" + text("storage") + name("posix", "system") + shell(mark) + text("cpu") + b"K\x01tQ"
    ),
    "an object outside that is no storage": lambda mark: v2(
        b"(" + text("module") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x01tQ"
    ),
    "an object outside by its name": lambda mark: v2(b"Pstorage\n"),
    "a storage that is a path": lambda mark: v2(
        name("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage") + name("torch", "FloatStorage")
        + text("../../../../etc/passwd") + text("cpu") + b"K\x01tQ" + b"K\x00K\x01\x85K\x01\x85\x89}tR"
    ),
    "a new object": lambda mark: v2(
        name("subprocess", "Popen") + b"]" + text("touch") + b"a" + text(str(mark)) + b"a\x85\x81"
    ),
    "a new object with names": lambda mark: v4(
        name("subprocess", "Popen") + b")}" + text("args") + b"]" + text("touch") + b"a" + text(str(mark)) + b"as\x92"
    ),
    "an extension's number": lambda mark: v2(b"\x82\x01)R"),
    "a call of what is no function": lambda mark: v2(text("system") + shell(mark) + b"\x85R"),
    "a call of a kind of storage": lambda mark: v2(name("torch", "FloatStorage") + b")R"),
    "a state for a name of the list": lambda mark: v2(
        name("collections", "OrderedDict") + b"N}" + text("__init__") + name("collections", "OrderedDict") + b"s\x86b"
    ),
    "numbers as text": lambda mark: v2(b"I1\n"),
    "nothing at all": lambda mark: v2(b"0"),
    "a buffer outside": lambda mark: b"\x80\x05\x97.",
}  # fmt: skip
"""Pickles that do no harm here, and that no file of weights has."""


def as_pickle(payload: bytes) -> bytes:
    return payload


def as_archive(payload: bytes, extra: Mapping[str, bytes] | None = None, root: str = "archive") -> bytes:
    """The pickle as the main one of a zip archive like torch's."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", payload)
        archive.writestr(f"{root}/version", b"3\n")
        archive.writestr(f"{root}/byteorder", b"little")
        archive.writestr(f"{root}/data/0", bytes(64))
        for member, data in (extra or {}).items():
            archive.writestr(member, data)
    return held.getvalue()


def as_chain(payload: bytes, keys: bytes = b"\x80\x02].", behind: bytes = b"") -> bytes:
    """The pickle as the main one of a chain like torch's before version 1.6."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return magic + pickle.dumps(1001, 2) + pickle.dumps(system, 2) + payload + keys + behind


FORMS = {"pickle": as_pickle, "archive": as_archive, "chain": as_chain}
