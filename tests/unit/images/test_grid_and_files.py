from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from darkroom.images.files import save
from darkroom.images.grid import count_rows, tile


@pytest.mark.parametrize(
    ("pictures", "rows", "batch_size", "prevent", "wanted"),
    [
        (1, -1, 1, False, 1),
        (4, -1, 1, False, 2),
        (6, -1, 1, False, 2),
        (7, -1, 1, False, 3),
        (7, -1, 1, True, 1),
        (12, -1, 1, True, 3),
        (6, 0, 3, False, 3),
        (6, 5, 1, False, 5),
        (3, 16, 1, False, 3),
    ],
)
def test_the_rows_of_a_grid(pictures: int, rows: int, batch_size: int, prevent: bool, wanted: int) -> None:
    assert count_rows(pictures, rows=rows, batch_size=batch_size, prevent_empty_spots=prevent) == wanted


def test_pictures_are_tiled_row_by_row_and_centred() -> None:
    small, large = np.full((2, 2, 3), 1, dtype=np.uint8), np.full((4, 6, 3), 2, dtype=np.uint8)
    sheet = tile([large, small, large], rows=2, background="#090909")
    assert sheet.shape == (8, 12, 3)
    assert sheet[:, :, 0].tolist() == [
        [2] * 6 + [9] * 6,
        [2] * 6 + [9, 9, 1, 1, 9, 9],
        [2] * 6 + [9, 9, 1, 1, 9, 9],
        [2] * 6 + [9] * 6,
        *[[2] * 6 + [9] * 6] * 4,
    ]


def test_files_are_numbered_on(tmp_path: Path) -> None:
    names = [save(b"x", tmp_path, decoration="5", extension="png").name for _ in range(3)]
    assert names == ["00000-5.png", "00001-5.png", "00002-5.png"]
    (tmp_path / "elsewhere").mkdir()
    assert save(b"x", tmp_path, decoration="", extension="png", basename="grid", digits=4).name == "grid-0000.png"
    assert save(b"x", tmp_path, decoration="", extension="png", basename="grid", digits=4).name == "grid-0001.png"
    assert save(b"x", tmp_path, decoration="7", extension="jpg").name == "00003-7.jpg"


def test_without_numbers_a_file_replaces_another_or_steps_aside(tmp_path: Path) -> None:
    def put(data: bytes, *, replace: bool) -> str:
        return save(data, tmp_path, decoration="cat", extension="png", numbered=False, replace=replace).name

    assert put(b"a", replace=False) == "cat.png"
    assert put(b"b", replace=False) == "cat-1.png"
    assert put(b"c", replace=True) == "cat.png"
    assert (tmp_path / "cat.png").read_bytes() == b"c"
    assert save(b"x", tmp_path, decoration="", extension="png", numbered=False).name == "00000.png"
    assert not list(tmp_path.glob(".save-*"))


def test_two_at_once_never_write_the_same_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda n: save(b"%d" % n, tmp_path, decoration="1", extension="png"), range(24)))
    assert len(set(paths)) == 24
    assert sorted(int(path.read_bytes()) for path in paths) == list(range(24))
    assert not list(paths[0].parent.glob(".save-*"))
