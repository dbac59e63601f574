import numpy as np
import pytest

from darkroom.images.captions import Caption, Ink, captioned

INK = Ink()


def cells(count: int, width: int = 128, height: int = 128) -> list[np.ndarray]:
    return [np.full((height, width, 3), 40 * place, dtype=np.uint8) for place in range(count)]


def texts(*names: str) -> list[list[Caption]]:
    return [[Caption(text=name)] for name in names]


def test_pictures_stand_row_by_row_beside_their_texts() -> None:
    sheet = captioned(cells(4), texts("x1", "x2"), texts("y1", "y2"), ink=INK)
    assert sheet.shape[1] == 256 + 96
    top = sheet.shape[0] - 256
    assert top > 0
    assert [int(sheet[top + y, 96 + x, 0]) for y in (5, 133) for x in (5, 133)] == [0, 40, 80, 120]
    assert sheet[:top, 96:].min() < 200  # letters
    assert sheet[top:, :96].min() < 200


def test_without_texts_nothing_is_added() -> None:
    sheet = captioned(cells(4), texts("", ""), texts("", ""), ink=INK)
    assert sheet.shape == (256, 256, 3)


def test_a_margin_stands_between_cells_only() -> None:
    sheet = captioned(cells(4), texts("", ""), texts("", ""), margin=10, ink=INK)
    assert sheet.shape == (266, 266, 3)
    assert (sheet[128:138] == 255).all()


def test_long_texts_are_broken_and_made_to_fit() -> None:
    long = "a very long caption made of many words " * 2
    short = captioned(cells(1), texts("a"), texts(""), ink=INK)
    sheet = captioned(cells(1), texts(long), texts(""), ink=INK)
    assert sheet.shape[0] > short.shape[0]
    word = captioned(cells(1), texts("w" * 200), texts(""), ink=INK)
    assert word.shape[1] == 128


@pytest.mark.parametrize("active", [True, False])
def test_what_does_not_apply_is_crossed_out(active: bool) -> None:
    sheet = captioned(cells(1), [[Caption(text="here", active=active)]], texts(""), ink=INK)
    top = sheet.shape[0] - 128
    thick = [(row == row[0]).all() and row[0, 0] < 200 for row in sheet[:top, 60:68]]
    assert any(thick) is not active
