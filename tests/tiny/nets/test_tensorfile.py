"""Files of tensors by the piece are what the safetensors package reads and writes."""

import gc
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.tensorfile import FORMATS, Form, MappedFile, TensorFile, write_tensors

WEIGHTS = {
    "a.weight": torch.arange(24, dtype=torch.float32).view(2, 3, 4),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c.ids": torch.arange(5),
    "empty": torch.zeros(0, 3, dtype=torch.float16),
    "scalar": torch.tensor(7, dtype=torch.int64),
    "small": torch.tensor([0.5, 2.0]).to(torch.float8_e4m3fn),
    "yes": torch.tensor([True, False]),
}


def write(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> str:
    forms = {name: Form(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with path.open("wb") as file:
        return write_tensors(file, forms, notes, (tensor.flatten() for tensor in tensors.values()))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and torch.equal(a[name], b[name])
        for name in a
    )


def test_the_safetensors_package_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    digest = write(path, WEIGHTS, {"format": "pt", "note": "grüße"})
    assert same(load_file(path), WEIGHTS)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "grüße"}
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_what_the_safetensors_package_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(WEIGHTS, path, {"key": "value"})
    with TensorFile(path) as file:
        found = {name: file.read(name).view(form.shape) for name, form in file.forms.items()}
        assert file.notes == {"key": "value"}
    assert same(found, WEIGHTS)


@given(first=st.integers(0, 24), count=st.integers(0, 24))
def test_any_piece_of_a_tensor_can_be_read(first: int, count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pieces") / "x.safetensors"
    write(path, WEIGHTS, {})
    count = min(count, 24 - first)
    with TensorFile(path) as file:
        assert file.read("a.weight", first, count).tolist() == list(range(first, first + count))


def test_every_format_has_its_own_name() -> None:
    assert len(set(FORMATS.values())) == len(FORMATS)


def raw(path: Path, header: object, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: object, end: object, shape: object = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": entry(0, 8)}, 7),
        ({"a": entry(0, 8)}, 9),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20),
        ({"a": entry(8, 0)}, 8),
        ({"a": entry(-8, 0)}, 8),
        ({"a": entry(0, 4)}, 4),
        ({"a": entry(0, 8, [-2])}, 8),
        ({"a": entry(0, 8, [True, 2])}, 8),
        ({"a": entry(0, 8, [2.0])}, 8),
        ({"a": entry(0, 8, "2")}, 8),
        ({"a": entry(0, 8, [2], "F31")}, 8),
        ({"a": entry(0, 8.0)}, 8),
        ({"a": 5}, 8),
        ({"a": {}}, 8),
        ({"__metadata__": 3}, 0),
        ([], 0),
    ],
)
def test_a_file_that_is_not_whole_or_lies_about_itself_is_refused(tmp_path: Path, header: object, size: int) -> None:
    path = raw(tmp_path / "bad.safetensors", header, bytes(size))
    with pytest.raises(BadModelFile, match=r"bad\.safetensors: is not a whole safetensors file"):
        TensorFile(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"\xff" * 64):
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        with pytest.raises(BadModelFile):
            TensorFile(path)
    with pytest.raises(BadModelFile):
        TensorFile(tmp_path / "none.safetensors")


def test_a_file_that_is_cut_off_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path, WEIGHTS, {})
    with TensorFile(path) as file:
        with path.open("r+b") as other:
            other.truncate(path.stat().st_size - 1)
        with pytest.raises(BadModelFile, match="became shorter"):
            file.read(list(file.forms)[-1])


def test_pieces_that_do_not_fill_the_tensors_are_an_error(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file, pytest.raises(ValueError, match="differ by 4 bytes"):
        write_tensors(file, {"a": Form(torch.float32, (2,))}, {}, [torch.zeros(1)])


def test_a_mapped_file_gives_the_same_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(WEIGHTS, path, {"key": "value"})
    file = MappedFile(path)
    found = {name: file.get(name) for name in file.forms}
    assert same(found, WEIGHTS)
    assert file.notes == {"key": "value"}
    file.close()
    assert same(found, WEIGHTS), "they keep the mapping"
    with pytest.raises(ValueError, match="closed"):
        file.get("b")


def test_what_is_done_to_a_mapped_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(WEIGHTS, path)
    before = path.read_bytes()
    MappedFile(path).get("a.weight").zero_()
    assert path.read_bytes() == before


def test_reading_again_and_again_leaves_no_objects_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"{number}": torch.zeros(300, 3) for number in range(100)}, path)

    def read() -> int:
        file = MappedFile(path)
        for name in file.forms:
            file.get(name)
        gc.collect()
        return sys.getallocatedblocks()

    read()
    early = read()
    for _ in range(5):
        late = read()
    assert late - early < 50, "less than one for each ten tensors"
