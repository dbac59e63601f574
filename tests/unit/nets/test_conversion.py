"""Safetensors copies of pickled files: when they are made, kept, dropped and refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from darkroom.errors import BadModelFile, NoRoom
from darkroom.nets import conversion
from darkroom.nets.catalog import Hashes
from darkroom.nets.conversion import Copies, make_copy
from darkroom.nets.inspection import find_shapes, read_shapes
from tests.unit.nets import traps


def put(path: Path, number: int = 1, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"a": torch.full((size,), float(number))}}, path)
    return path


def copies_in(folder: Path, max_bytes: int = 1 << 20) -> Copies:
    return Copies(folder, max_bytes, Hashes(None).get)


@pytest.fixture(autouse=True)
def _even_small_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_LARGE_BYTES", 0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files for which a process was started."""
    started: list[str] = []
    run: Callable[..., None] = conversion._run

    def note(path: Path, *rest: object) -> None:
        started.append(path.name)
        run(path, *rest)

    monkeypatch.setattr(conversion, "_run", note)
    return started


def test_a_copy_is_made_once_and_holds_the_weights(tmp_path: Path, runs: list[str]) -> None:
    path = put(tmp_path / "model.ckpt")
    before = path.read_bytes()
    copies = copies_in(tmp_path / "kept")
    copy = copies.get(path)
    assert copies.get(path) == copy
    assert torch.equal(load_file(copy)["a"], torch.ones(1000))
    assert copies_in(tmp_path / "kept").get(path) == copy
    assert runs == ["model.ckpt"]
    assert path.read_bytes() == before


def test_the_copy_goes_by_the_content_and_not_by_the_name(tmp_path: Path, runs: list[str]) -> None:
    copies = copies_in(tmp_path / "kept")
    one = copies.get(put(tmp_path / "a.ckpt"))
    shutil.copy(tmp_path / "a.ckpt", tmp_path / "b.pt")
    assert copies.get(tmp_path / "b.pt") == one
    changed = put(tmp_path / "a.ckpt", number=2)
    os.utime(changed, ns=(1, 1))
    assert copies.get(changed) != one
    assert runs == ["a.ckpt", "a.ckpt"]


def test_what_was_used_last_stays_when_room_is_short(tmp_path: Path) -> None:
    paths = [put(tmp_path / f"{number}.ckpt", number) for number in range(4)]
    copies = copies_in(tmp_path / "kept", max_bytes=3 * paths[0].stat().st_size)
    made = [copies.get(path) for path in paths[:3]]
    for age, copy in zip((30, 10, 20), made, strict=True):
        os.utime(copy, (copy.stat().st_mtime - age,) * 2)
    copies.get(paths[0])
    copies.get(paths[3])
    assert [copy.exists() for copy in made] == [True, True, False]


def test_a_copy_larger_than_all_the_room_is_still_made(tmp_path: Path) -> None:
    assert copies_in(tmp_path / "kept", max_bytes=1).get(put(tmp_path / "a.ckpt")).is_file()


def test_a_refused_file_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(traps.as_archive(traps.LIVE["builtins.eval"](tmp_path / "ran")))
    copies = copies_in(tmp_path / "kept")
    with pytest.raises(BadModelFile, match=r"bad\.ckpt"):
        copies.get(path)
    with pytest.raises(BadModelFile, match=r"bad\.ckpt"):
        copies.describe(path)
    assert list((tmp_path / "kept").iterdir()) == []
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.nets.conversion.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(NoRoom, match=r"a\.ckpt: its safetensors copy takes about \d+ bytes .* and 10 are free"):
        copies_in(tmp_path / "kept").get(put(tmp_path / "a.ckpt"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file stands where the folder should")
    with pytest.raises(BadModelFile, match=r"a\.ckpt: no copy of it can be written"):
        copies_in(tmp_path / "kept").get(put(tmp_path / "a.ckpt"))


def test_what_a_process_left_half_done_long_ago_is_cleared_away(tmp_path: Path) -> None:
    old, new = tmp_path / "kept" / "x.1.part", tmp_path / "kept" / "y.2.part"
    old.parent.mkdir()
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    copies_in(tmp_path / "kept").get(put(tmp_path / "a.ckpt"))
    assert (old.exists(), new.exists()) == (False, True)


def test_names_and_shapes_are_asked_for_once_until_the_file_changes(tmp_path: Path, runs: list[str]) -> None:
    path = put(tmp_path / "a.ckpt")
    for _ in range(2):
        assert read_shapes(path, copies_in(tmp_path / "kept")) == {"a": (1000,)}
    put(path, size=7)
    os.utime(path, ns=(1, 1))
    assert read_shapes(path, copies_in(tmp_path / "kept")) == {"a": (7,)}
    assert runs == ["a.ckpt", "a.ckpt"]


def test_a_damaged_note_of_names_and_shapes_is_made_anew(tmp_path: Path) -> None:
    path, copies = put(tmp_path / "a.ckpt"), copies_in(tmp_path / "kept")
    copies.describe(path)
    [note] = (tmp_path / "kept").glob("*.json")
    note.write_text("{")
    assert read_shapes(path, copies) == {"a": (1000,)}


def test_what_cannot_be_read_has_no_shapes_and_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "odd.ckpt").write_bytes(traps.as_pickle(traps.LIVE["builtins.eval"](tmp_path / "ran")))
    assert find_shapes(tmp_path / "odd.ckpt") == {}
    assert "odd.ckpt: is a pickled file that is not opened" in caplog.text


def test_a_copy_beside_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    make_copy(put(tmp_path / "a.ckpt"), tmp_path / "a.safetensors")
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], torch.ones(1000))
    (tmp_path / "half.ckpt").write_bytes(put(tmp_path / "a.ckpt").read_bytes()[:-100])
    with pytest.raises(BadModelFile, match="damaged"):
        make_copy(tmp_path / "half.ckpt", tmp_path / "half.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ckpt", "a.safetensors", "half.ckpt"]
