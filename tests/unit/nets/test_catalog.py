"""Finding checkpoint files and their hashes."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from darkroom.errors import BadModelFile
from darkroom.nets.catalog import Catalog, CheckpointFile


def put(folder: Path, name: str, content: bytes = b"weights") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@contextmanager
def catalog_of(*folders: Path, cache: Path | None = None, fallback: Path | None = None) -> Iterator[Catalog]:
    catalog = Catalog(folders, cache=cache, fallback=fallback)
    try:
        yield catalog
    finally:
        catalog.close()


def paths(files: tuple[CheckpointFile, ...]) -> list[str]:
    return [file.path for file in files]


def hashed(catalog: Catalog) -> tuple[CheckpointFile, ...]:
    """The listing once all hashes are known."""
    deadline = time.monotonic() + 10
    while any(file.sha256 is None for file in catalog.checkpoints()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return catalog.checkpoints()


def test_folders_are_searched_in_natural_order(tmp_path: Path) -> None:
    for name in ("v10.safetensors", "V2.CKPT", "b.safetensors", "sub/z.ckpt", "sub/a.SafeTensors", "Aub/x.ckpt"):
        put(tmp_path, name)
    for name in ("notes.txt", "model.pt", "b.vae.safetensors", "b.VAE.ckpt"):
        put(tmp_path, name)
    with catalog_of(tmp_path) as catalog:
        found = [path.rsplit(".")[0] for path in paths(catalog.refresh())]
    assert found == ["b", "V2", "v10", "Aub/x", "sub/a", "sub/z"]


def test_several_folders_follow_each_other(tmp_path: Path) -> None:
    put(tmp_path, "one/b.safetensors")
    put(tmp_path, "two/a.safetensors")
    with catalog_of(tmp_path / "one", tmp_path / "two", tmp_path / "absent") as catalog:
        assert paths(catalog.refresh()) == ["b.safetensors", "a.safetensors"]


def test_a_new_file_appears_after_a_refresh(tmp_path: Path) -> None:
    with catalog_of(tmp_path) as catalog:
        assert catalog.refresh() == ()
        put(tmp_path, "new.safetensors")
        assert catalog.checkpoints() == ()
        assert paths(catalog.refresh()) == ["new.safetensors"]


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/linked.safetensors")
    folder = tmp_path / "models"
    put(folder, "own.safetensors")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    (folder / "broken.safetensors").symlink_to(tmp_path / "nothing")
    with catalog_of(folder) as catalog:
        assert paths(catalog.refresh()) == ["own.safetensors", "more/linked.safetensors"]


def test_the_fallback_is_listed_only_when_there_is_nothing_else(tmp_path: Path) -> None:
    mini = put(tmp_path, "package/mini.safetensors")
    folder = tmp_path / "models"
    with catalog_of(folder, fallback=mini) as catalog:
        assert paths(catalog.refresh()) == ["mini.safetensors"]
        put(folder, "real.safetensors")
        assert paths(catalog.refresh()) == ["real.safetensors"]


def test_the_yaml_beside_a_file_gives_its_native_size(tmp_path: Path) -> None:
    put(tmp_path, "a.safetensors")
    config = put(tmp_path, "a.yaml", b"darkroom: {native_size: 128}")
    put(tmp_path, "b.safetensors")
    with catalog_of(tmp_path) as catalog:
        first, second = catalog.refresh()
    assert (first.config, first.settings.native_size) == (str(config), 128)
    assert (second.config, second.settings.native_size) == (None, 512)


def test_a_broken_yaml_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "a.safetensors")
    put(tmp_path, "a.yaml", b"[")
    put(tmp_path, "b.safetensors")
    with catalog_of(tmp_path) as catalog:
        assert paths(catalog.refresh()) == ["a.safetensors", "b.safetensors"]
    assert "a.yaml" in caplog.text


def test_hashes_come_by_themselves(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) + b"second megabyte"
    put(tmp_path, "a.safetensors", content)
    with catalog_of(tmp_path) as catalog:
        catalog.refresh()
        (file,) = hashed(catalog)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.old_hash == hashlib.sha256(b"second megabyte").hexdigest()[:8]


def test_the_old_hash_of_a_small_file_is_that_of_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.safetensors")
    with catalog_of(tmp_path) as catalog:
        assert catalog.refresh()[0].old_hash == "e3b0c442"


def test_hashes_outlive_the_process(tmp_path: Path) -> None:
    cache = tmp_path / "data" / "hashes.json"
    put(tmp_path, "models/a.safetensors")
    with catalog_of(tmp_path / "models", cache=cache) as catalog:
        catalog.refresh()
        known = hashed(catalog)
    with catalog_of(tmp_path / "models", cache=cache) as catalog:
        assert catalog.refresh() == known
    assert [path.name for path in cache.parent.iterdir()] == ["hashes.json"]


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    path = put(tmp_path, "a.safetensors", b"old")
    with catalog_of(tmp_path) as catalog:
        before = catalog.sha256(str(path))
        path.write_bytes(b"new!")
        assert catalog.sha256(str(path)) == hashlib.sha256(b"new!").hexdigest() != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sha256": 3}', b'{"sha256": {"a": 7}}', b"\xff"])
def test_a_damaged_cache_is_started_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    cache = put(tmp_path, "hashes.json", content)
    put(tmp_path, "models/a.safetensors")
    with catalog_of(tmp_path / "models", cache=cache) as catalog:
        catalog.refresh()
        assert hashed(catalog)[0].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert "not a cache" in caplog.text


def test_the_hash_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with catalog_of(tmp_path) as catalog, pytest.raises(BadModelFile, match="gone"):
        catalog.sha256(str(tmp_path / "gone.safetensors"))


def test_closing_twice_or_unused_is_harmless(tmp_path: Path) -> None:
    catalog = Catalog([tmp_path])
    catalog.close()
    catalog.close()


def test_hidden_folders_are_passed_over_on_request(tmp_path: Path) -> None:
    put(tmp_path, ".hidden/sub/a.safetensors")
    put(tmp_path, "shown/.b.safetensors")
    with catalog_of(tmp_path) as catalog:
        assert paths(catalog.refresh()) == [".hidden/sub/a.safetensors", "shown/.b.safetensors"]
        assert paths(catalog.refresh(hidden=False)) == ["shown/.b.safetensors"]


def test_a_checkpoint_of_ones_own_comes_first_and_only_once(tmp_path: Path) -> None:
    put(tmp_path, "models/a.safetensors")
    inside, outside = put(tmp_path, "models/sub/b.ckpt"), put(tmp_path, "elsewhere/c.ckpt")
    for first, listed in (
        (inside, ["sub/b.ckpt", "a.safetensors"]),
        (outside, ["c.ckpt", "a.safetensors", "sub/b.ckpt"]),
        (tmp_path / "gone.ckpt", ["a.safetensors", "sub/b.ckpt"]),
    ):
        catalog = Catalog([tmp_path / "models"], first=first)
        assert paths(catalog.refresh()) == listed
        catalog.close()


def test_of_two_folders_files_of_one_name_the_last_one_counts(tmp_path: Path) -> None:
    put(tmp_path, "one/a.safetensors")
    put(tmp_path, "one/b.safetensors")
    last = put(tmp_path, "two/a.safetensors", b"others")
    with catalog_of(tmp_path / "one", tmp_path / "two") as catalog:
        found = catalog.refresh()
    assert paths(found) == ["a.safetensors", "b.safetensors"]
    assert found[0].filename == str(last)


def test_no_hash_is_computed_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path, "a.safetensors")
    before = set(threading.enumerate())
    catalog = Catalog([tmp_path], hashing=False)
    catalog.refresh()
    assert set(threading.enumerate()) <= before
    assert catalog.checkpoints()[0].sha256 is None
    assert catalog.sha256(str(path)) == hashlib.sha256(b"weights").hexdigest()
    catalog.close()
