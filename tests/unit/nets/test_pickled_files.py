"""Pickled files: what comes out of good ones, and that nothing comes out of, or runs from, the others."""

import ast
import io
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.containers import container_of
from darkroom.nets.conversion import describe
from darkroom.nets.pickles import read_content, read_state_dict, read_tensors
from darkroom.nets.unpickler.machine import Machine
from darkroom.nets.unpickler.process import DAMAGE
from darkroom.nets.unpickler.values import RefusedError
from tests.unit.nets import traps

LIMIT = 1 << 30
ROOT = Path(__file__).parents[3]


def saved(content: object, **how: Any) -> bytes:
    held = io.BytesIO()
    torch.save(content, held, **how)
    return held.getvalue()


def put(folder: Path, data: bytes, name: str = "file.ckpt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def alike(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and one == other


def in_order(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(sorted(weights.items()))


def bits(tensor: Tensor) -> bytes:
    data = tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)
    return data.numpy().tobytes()


WEIGHTS = {
    "model.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "half": torch.tensor([1.5, float("inf"), float("nan")]).half(),
    "brain": torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "steps": torch.arange(6).reshape(2, 3),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "turned": torch.arange(20.0).reshape(4, 5).t(),
    "a part": torch.arange(40.0)[3:33:3],
    "channels last": torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(1)).to(
        memory_format=torch.channels_last
    ),
    "spread": torch.ones(1).expand(3, 2),
    "small": torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
    "wide": torch.tensor([1, 2, 65535], dtype=torch.uint16),
}


@pytest.mark.parametrize(
    "how", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=["archive", "chain", "later"]
)
@pytest.mark.parametrize("wrap", ["", "state_dict", "params_ema"])
def test_every_tensor_comes_out_bit_for_bit(tmp_path: Path, how: dict[str, Any], wrap: str) -> None:
    known = {name: tensor for name, tensor in WEIGHTS.items() if not (name == "wide" and "_use_new" in str(how))}
    path = put(tmp_path, saved({wrap: known, "epoch": 3} if wrap else known, **how), "model.pth")
    before = path.read_bytes()
    assert alike(in_order(read_state_dict(path)), in_order(known))
    assert path.read_bytes() == before


def test_a_safetensors_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2)}
    assert alike(read_state_dict(put(tmp_path, save(weights), "model.ckpt")), weights)
    assert alike(read_state_dict(put(tmp_path, saved(weights), "model.safetensors")), weights)


def test_plain_values_and_keys_of_numbers_stay(tmp_path: Path) -> None:
    content = {
        768: ({"w": torch.ones(2)}, {"w": torch.zeros(2)}),
        "activation_func": "relu",
        "layer_structure": [1.0, 2.0, 1.0],
        "use": True,
        "nothing": None,
        "deep": {"a": [1, {"b": "c"}]},
        "big": 1 << 100,
    }
    assert alike(read_content(put(tmp_path, saved(content)), LIMIT), content)


def test_an_ordered_dictionary_with_attributes_is_a_dictionary(tmp_path: Path) -> None:
    weights = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3)).state_dict()
    assert hasattr(weights, "_metadata")
    assert alike(in_order(read_state_dict(put(tmp_path, saved(weights)))), in_order(weights))


def test_parameters_and_their_dictionaries_are_tensors(tmp_path: Path) -> None:
    vectors = torch.ones(2, 8)
    held = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})
    content = read_content(put(tmp_path, saved({"string_to_param": held, "plain": torch.nn.Parameter(vectors)})), LIMIT)
    assert alike(content["string_to_param"]["*"], vectors)
    assert alike(content["plain"], vectors)


def test_tensors_that_share_a_storage_are_both_there(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    content = read_tensors(put(tmp_path, saved({"a": whole[:4], "b": whole[2:9], "c": whole})), LIMIT)
    assert alike(content, {"a": whole[:4], "b": whole[2:9], "c": whole})


class Leftover:
    """Stands for a callback of a training library."""


def test_the_notes_of_a_training_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import numpy as np

    module = types.ModuleType("pytorch_lightning.callbacks")
    Leftover.__module__, Leftover.__qualname__ = "pytorch_lightning.callbacks", "ModelCheckpoint"
    module.ModelCheckpoint = Leftover  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", module)
    note = Leftover()
    note.__dict__.update(best=torch.tensor(0.5), score=np.float64(0.25))
    content = {
        "state_dict": OrderedDict(a=torch.ones(2)),
        "noise": np.arange(3),
        "callbacks": {Leftover: {"score": np.float64(0.5), "steps": np.int64(3)}, "one": note},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "seen": {1, 2}}],
    }
    path = put(tmp_path, saved(content))
    assert alike(read_state_dict(path), {"a": torch.ones(2)})


def test_a_description_is_the_header_of_the_copy(tmp_path: Path) -> None:
    header = describe(put(tmp_path, saved({"state_dict": {"a": torch.ones(2, 3).half(), "b": torch.zeros(4)}})))
    assert header == {
        "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [16, 28]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    }


plain = st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.floats(allow_nan=False)
tensors = st.builds(
    lambda size, kind: (torch.arange(size) % 3).to(kind),
    st.integers(0, 9),
    st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.uint8]),
)
trees = st.recursive(
    plain | tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=20)  # a process for each
@given(content=st.dictionaries(st.text(min_size=1, max_size=8) | st.integers(), trees, max_size=4))
def test_whatever_tree_is_saved_comes_back(tmp_path_factory: pytest.TempPathFactory, content: dict[Any, Any]) -> None:
    if isinstance(content.get("state_dict"), dict):
        return
    assert alike(read_content(put(tmp_path_factory.mktemp("tree"), saved(content)), LIMIT), content)


# What must not be opened.


def test_nothing_in_the_package_reads_pickles_in_its_own_process() -> None:
    """Training, which reads what it has written itself, apart."""
    found = []
    for path in (ROOT / "darkroom").rglob("*.py"):
        if path.parts[-2] == "mini":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = str(node.module) if isinstance(node, ast.ImportFrom) else ""
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            odd = {"pickle", "_pickle", "dill", "joblib", "shelve", "marshal"} & {*names, module}
            if odd or called in {"torch.load", "torch.jit.load", "np.load"} or called.endswith(".load_from_file"):
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)[:80]}")
    assert found == []


@pytest.mark.parametrize("trick", traps.LIVE)
def test_each_trap_would_go_off_in_an_ordinary_unpickler(tmp_path: Path, trick: str) -> None:
    mark = tmp_path / "ran"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pickle.loads(traps.LIVE[trick](mark))
    assert mark.exists()


def refuse(look: Callable[[Path], object], folder: Path, trick: str, form: str, name: str) -> None:
    """Expect that a trap is refused by its name, unsprung."""
    mark = folder / "ran"
    path = put(folder, traps.FORMS[form]((dict(traps.LIVE) | dict(traps.DEAD))[trick](mark)), name)
    with pytest.raises(BadModelFile, match=rf"{name}: is a pickled file that is not opened: \w+"):
        look(path)
    assert [file.name for file in folder.iterdir()] == [name]


@pytest.mark.parametrize("form", traps.FORMS)
@pytest.mark.parametrize("trick", [*traps.LIVE, *traps.DEAD])
def test_a_trap_is_refused_and_does_not_run(tmp_path: Path, trick: str, form: str) -> None:
    refuse(read_state_dict, tmp_path, trick, form, "model.ckpt")


@pytest.mark.parametrize("name", ["model.CKPT", "model.safetensors", "model.SafeTensors", "model.vae.pt", "model"])
@pytest.mark.parametrize("form", traps.FORMS)
def test_a_trap_does_not_run_whatever_the_file_is_called(tmp_path: Path, form: str, name: str) -> None:
    refuse(read_state_dict, tmp_path, "a walk by getattr", form, name)


@pytest.mark.parametrize("form", traps.FORMS)
def test_a_trap_does_not_run_when_its_names_are_asked_for(tmp_path: Path, form: str) -> None:
    refuse(describe, tmp_path, "builtins.eval", form, "model.ckpt")


GOOD = traps.v2(b"}" + traps.text("a") + b"K\x01s")


def tensor_pickle(offset: bytes = b"K\x00", sizes: bytes = b"K\x10\x85", strides: bytes = b"K\x01\x85") -> bytes:
    """A pickle of one tensor over sixteen numbers of four bytes."""
    storage = b"(" + traps.text("storage") + traps.name("torch", "FloatStorage") + traps.text("0") + traps.text("cpu")
    made = traps.name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\x10tQ" + offset + sizes + strides
    return traps.v2(b"}" + traps.text("a") + made + b"\x89}tRs")


def two_members_of_one_name() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return traps.as_archive(GOOD, {"archive/data/0": bytes(64)})


def compressed() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", GOOD + bytes(1 << 22))
    return held.getvalue()


def two_names_for_one_member() -> bytes:
    data = traps.as_archive(GOOD, {"archive/hidden.pkl": GOOD})
    first = data.index(b"archive/hidden.pkl")
    return data[:first] + b"archive/shown!.pkl" + data[first + 18 :]


def two_members_in_one_place() -> bytes:
    """The list of members says that the last one begins where the first does."""
    data = bytearray(traps.as_archive(GOOD, {"archive/data.pkk": GOOD}))
    entry = data.rindex(b"archive/data.pkk") - 46
    data[entry + 42 : entry + 46] = bytes(4)
    first = data.index(b"archive/data.pkl")
    data[first : first + 16] = b"archive/data.pkk"
    return bytes(data)


def doubling() -> bytes:
    """A list of two lists of two lists ... of which each is the same."""
    return traps.v2(b"]q\x000" + b"]h\x00ah\x00aq\x000" * 60 + b"}" + traps.text("a") + b"h\x00s")


ARCHIVES = {
    "a pickle behind the pickle": (traps.as_archive(GOOD + GOOD), "behind its pickle"),
    "a pickle behind the chain": (traps.as_chain(GOOD, behind=GOOD), "behind its weights"),
    "a chain with an archive behind it": (traps.as_chain(GOOD) + traps.as_archive(GOOD), "behind its weights"),
    "a bare pickle": (GOOD, "not one of weights"),
    "an archive of something else": (traps.as_archive(GOOD, root="a/b"), "not one of weights"),
    "a document": (traps.as_archive(GOOD, {"word/document.xml": b"<x/>"}), "not of its weights"),
    "two members of one name": (two_members_of_one_name(), "twice"),
    "a member compressed": (compressed(), "compressed"),
    "a member that leads upwards": (traps.as_archive(GOOD, {"archive/../../x": b""}), "unusual name"),
    "a member with an absolute name": (traps.as_archive(GOOD, {"/etc/x": b""}), "unusual name"),
    "a member with a name for another system": (traps.as_archive(GOOD, {"archive/..\\x": b""}), "unusual name"),
    "a member with two names": (two_names_for_one_member(), "two names"),
    "members in one place": (two_members_in_one_place(), "lies on another|two names"),
    "a program": (traps.as_archive(GOOD, {"archive/constants.pkl": GOOD}), "TorchScript"),
    "a program's code": (traps.as_archive(GOOD, {"archive/code/__torch__.py": b""}), "TorchScript"),
    "the high byte first": (traps.as_archive(GOOD).replace(b"little", b"bigbig"), "high byte first"),
    "a tensor larger than its storage": (traps.as_archive(tensor_pickle(sizes=b"K\x11\x85")), "beyond its storage"),
    "a tensor behind its storage": (traps.as_archive(tensor_pickle(offset=b"K\x01")), "beyond its storage"),
    "a tensor before its storage": (
        traps.as_archive(tensor_pickle(offset=b"J" + struct.pack("<i", -4))),
        "no whole number",
    ),
    "a tensor that steps back": (
        traps.as_archive(tensor_pickle(strides=b"J" + struct.pack("<i", -1) + b"\x85")),
        "no whole number",
    ),
    "a tensor of many times one number": (
        traps.as_archive(tensor_pickle(sizes=b"J\x00\x00\x00\x40J\x00\x00\x00\x40\x86", strides=b"K\x00K\x00\x86")),
        "larger than",
    ),
    "a tensor of one shape and two strides": (
        traps.as_archive(tensor_pickle(strides=b"K\x01K\x01\x86")),
        "differ in length",
    ),
    "lists in lists": (traps.as_archive(traps.v2(b"]" * 2_000 + b"a" * 1_999)), "nested too deeply"),
    "a list in itself": (traps.as_archive(traps.v2(b"]q\x00h\x00a")), "nested too deeply"),
    "lists that double": (traps.as_archive(doubling()), "nested too deeply or too often"),
    "a text longer than the file": (traps.as_archive(traps.v2(b"X\xff\xff\xff\x7f")), "ends too early"),
    "a number of a hundred thousand digits": (
        traps.as_archive(traps.v2(b"\x8b" + struct.pack("<I", 50_000) + b"\x01" * 50_000)),
        "far too long",
    ),
    "half an archive": (traps.as_archive(GOOD)[:-40], "damaged"),
    "half a pickle": (traps.as_archive(GOOD[:-3]), "ends too early"),
}


@pytest.mark.parametrize("trick", ARCHIVES)
def test_an_archive_that_is_not_as_torch_writes_it_is_refused(tmp_path: Path, trick: str) -> None:
    data, reason = ARCHIVES[trick]
    path = put(tmp_path, data)
    with pytest.raises(BadModelFile, match=rf"file\.ckpt: is a pickled file that is not opened: .*({reason})"):
        read_content(path, LIMIT)


def test_an_archive_of_this_kind_without_a_trick_is_read(tmp_path: Path) -> None:
    assert read_content(put(tmp_path, traps.as_archive(GOOD)), LIMIT) == {"a": 1}
    assert read_content(put(tmp_path, traps.as_chain(GOOD)), LIMIT) == {"a": 1}
    assert alike(read_content(put(tmp_path, traps.as_archive(tensor_pickle())), LIMIT), {"a": torch.zeros(16)})


def with_header(header: bytes, data: bytes = bytes(8)) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


SAFE = {
    "a header that is longer than the file": struct.pack("<Q", 1 << 40) + b"{}" + bytes(100),
    "two tensors in one place": with_header(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    ),
    "a tensor beyond the end": with_header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "a tensor larger than its place": with_header(b'{"a":{"dtype":"F32","shape":[400],"data_offsets":[0,8]}}'),
    "a shape of too many numbers": with_header(
        b'{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,8]}}'
    ),
    "a gap": with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
    "no JSON": with_header(b'{"a":'),
    "a list": with_header(b"[]      "),
    "a tree of a tensor that is not there": with_header(b'{"__metadata__":{"darkroom.tree":"{\\"t\\":\\"a\\"}"}}', b""),
    "a tree that is none": with_header(b'{"__metadata__":{"darkroom.tree":"{\\"d\\":[[[],1]]}"}}', b""),
    "half a file": save({"a": torch.ones(100)})[:-9],
}


@pytest.mark.parametrize("trick", SAFE)
def test_a_safetensors_file_that_lies_is_refused(tmp_path: Path, trick: str) -> None:
    with pytest.raises(BadModelFile, match=r"file\.safetensors: is "):
        read_content(put(tmp_path, SAFE[trick], "file.safetensors"), LIMIT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"cposix\nsystem\n(S'true'\ntR.", "neither"),
        (bytes(4096), "neither"),
    ],
)
def test_what_is_no_file_of_tensors_is_called_what_it_is(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(BadModelFile, match=rf"file\.ckpt: is .*{reason}"):
        container_of(put(tmp_path, data))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"gone\.pt: cannot be read"):
        read_content(tmp_path / "gone.pt", LIMIT)


def test_more_bytes_than_may_be_read_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, saved({"a": torch.zeros(1000), "b": torch.zeros(1).expand(5000)}))
    with pytest.raises(BadModelFile, match="larger than 9000 bytes"):
        read_content(path, 9000)
    with pytest.raises(BadModelFile, match="at most 100"):
        read_content(path, 100)


@settings(deadline=None)
@given(data=st.binary(max_size=60))
def test_no_pickle_breaks_the_interpreter(data: bytes) -> None:
    machine = Machine(io.BytesIO(data), len(data))
    try:
        machine.run()
    except (RefusedError, *DAMAGE):
        pass


@settings(deadline=None)
@given(place=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_changed_byte_never_does_more_than_refuse_the_file(place: int, byte: int) -> None:
    data = bytearray(pickle.dumps({"a": [1, {"b": (2.5, "c")}], "d": OrderedDict(e=b"f")}, protocol=place % 3 + 2))
    data[place % len(data)] = byte
    machine = Machine(io.BytesIO(bytes(data)), len(data))
    try:
        machine.run()
    except (RefusedError, *DAMAGE):
        pass


SEALED = """
import os, sys, socket, ctypes
sys.path.insert(0, {root!r})
from darkroom.nets.unpickler.process import seal
seal(1000, 0)
{statement}
os.write(1, b"survived")
"""


@pytest.mark.parametrize(
    "statement",
    [
        "open({mark!r}, 'w')",
        "os.open({mark!r}, os.O_CREAT | os.O_WRONLY)",
        "os.system('touch ' + {mark!r})",
        "os.fork()",
        "os.execv('/bin/touch', ['touch', {mark!r}])",
        "os.posix_spawn('/bin/touch', ['touch', {mark!r}], {{}})",
        "import subprocess",
        "import json.tool",
        "socket.socket()",
        "socket.socketpair()",
        "eval('1')",
        "ctypes.CDLL(None)",
        "os.remove('/nothing')",
        "os.write(1, bytes(2000))",
        "bytearray(4 << 30)",
    ],
)
def test_the_sealed_process_can_do_nothing_but_read_and_write(tmp_path: Path, statement: str) -> None:
    mark, out = tmp_path / "ran", tmp_path / "out"
    program = SEALED.format(root=str(ROOT), statement=statement.format(mark=str(mark)))
    with out.open("wb") as target:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", program], stdout=target, check=False)
    assert b"survived" not in out.read_bytes()
    assert out.stat().st_size <= 1000
    assert done.returncode != 0 or statement.startswith("os.write")
    assert not mark.exists()


def test_the_sealed_process_itself_lives(tmp_path: Path) -> None:
    program = SEALED.format(root=str(ROOT), statement="")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=False)
    assert done.stdout == b"survived"


def test_a_file_kept_from_a_pickle_is_as_good_as_the_pickle(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2)}
    save_file(weights, tmp_path / "a.safetensors")
    assert alike(read_state_dict(tmp_path / "a.safetensors"), weights)
