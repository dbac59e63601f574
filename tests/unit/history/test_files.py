"""Files of pictures: safe once they are put, in a folder and in a bucket that a real S3 client speaks to."""

from pathlib import Path

import pytest

from darkroom.history.files import Files, FilesUnavailable, Folder, open_files
from tests.bucket import bucket

__all__ = ["bucket"]

KEY = "ab/abcdef-0.png"


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return open_files("" if request.param == "folder" else request.getfixturevalue("bucket"), tmp_path)


def test_what_was_put_is_found_until_it_is_removed(files: Files) -> None:
    assert files.find(KEY) is None
    files.put(KEY, b"one", "image/png")
    files.put(KEY, b"two", "image/png")
    assert files.find(KEY) == b"two"
    files.remove(KEY)
    files.remove(KEY)
    assert files.find(KEY) is None


@pytest.mark.parametrize("key", ["../x.png", "/etc/passwd", "a/../b.png", "", "a//b.png", "a\0.png", "a.png/"])
def test_no_key_leaves_the_place(files: Files, key: str) -> None:
    for use in (files.find, files.remove, lambda name: files.put(name, b"", "image/png")):
        with pytest.raises(ValueError, match="not a key"):
            use(key)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put(KEY, b"x" * 1000, "image/png")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["abcdef-0.png"]


def test_a_place_that_cannot_be_written_to_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "ab").write_text("a file where a folder should be")
    with pytest.raises(FilesUnavailable, match="cannot be kept"):
        Folder(tmp_path).put(KEY, b"x", "image/png")


@pytest.mark.parametrize("url", ["http://x/y", "s3://b?aws_secret_access_key=x", "ftp://x"])
def test_an_address_that_is_no_bucket_s_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(FilesUnavailable):
        open_files(url, tmp_path)


def test_a_bucket_that_is_not_there_is_said_to_be_so(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(FilesUnavailable, match="cannot be kept"):
        open_files(bucket.replace("pictures", "nowhere"), tmp_path).put(KEY, b"x", "image/png")
