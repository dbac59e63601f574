"""What is compiled here is compiled once, and again where what lies there is no library."""

import shutil
from pathlib import Path

import pytest

from darkroom.nets.native_library import COMPILERS, load

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C compiler here")


@needs_compiler
def test_a_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("norms", (), tmp_path)
    [library] = tmp_path.iterdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert hasattr(load("norms", (), tmp_path), "normalise")
    assert list(tmp_path.iterdir()) == [library]


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"no library"])
def test_what_cannot_be_loaded_is_compiled_anew(tmp_path: Path, content: bytes) -> None:
    load("norms", (), tmp_path / "first")
    [library] = (tmp_path / "first").iterdir()
    broken = tmp_path / "second" / library.name
    broken.parent.mkdir()
    broken.write_bytes(content)
    assert hasattr(load("norms", (), broken.parent), "normalise")
    assert list(broken.parent.iterdir()) == [broken]
    assert len(broken.read_bytes()) > len(content)


@needs_compiler
def test_without_a_compiler_what_cannot_be_loaded_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("norms", (), tmp_path / "first")
    [library] = (tmp_path / "first").iterdir()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / library.name).write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(OSError, match="no C compiler"):
        load("norms", (), tmp_path / "second")
