"""Hashes that are computed aside."""

import hashlib
import threading
from pathlib import Path

import pytest

from darkroom.nets.catalog import Hashes
from darkroom.nets.hashing import Hasher


def test_many_who_ask_at_once_have_it_computed_once(tmp_path: Path) -> None:
    begun, go = list[Path](), threading.Event()

    def compute(path: Path, offset: int) -> str:
        begun.append(path)
        assert go.wait(30)
        return f"{path.name}+{offset}"

    hasher = Hasher(compute, patience_s=30)
    asked = [hasher._begin(tmp_path / "a", 3) for _ in range(8)]
    go.set()
    assert {one.result(30) for one in asked} == {"a+3"}
    assert len(begun) == 1


def test_nobody_waits_longer_than_patience_and_the_next_one_has_it(tmp_path: Path) -> None:
    go = threading.Event()
    known: dict[Path, str] = {}

    def compute(path: Path, _: int) -> str:
        if path not in known:
            assert go.wait(30)
            known[path] = "digits"
        return known[path]

    path = tmp_path / "large"
    impatient, patient = Hasher(compute, patience_s=0.01), Hasher(compute, patience_s=30)
    assert impatient.find(path) is None
    assert impatient.find(path) is None
    go.set()
    assert patient.find(path) == "digits"
    assert patient.find(path) == "digits"


def test_a_file_that_cannot_be_read_says_so_to_whoever_asks(tmp_path: Path) -> None:
    hashes = Hashes(None)
    hasher = Hasher(lambda path, offset: hashes.get(path, offset=offset))
    for _ in range(2):
        with pytest.raises(OSError, match="nowhere"):
            hasher.find(tmp_path / "nowhere")


def test_a_hash_is_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    hashes = Hashes(None)
    hasher = Hasher(lambda path, offset: hashes.get(path, offset=offset), patience_s=30)
    path = tmp_path / "file"
    for content in (b"first", b"the second"):
        path.write_bytes(content)
        assert hasher.find(path) == hashlib.sha256(content).hexdigest()
        assert hasher.find(path, 3) == hashlib.sha256(content[3:]).hexdigest()
