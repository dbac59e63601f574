from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import BadRequest
from darkroom.scripts.signature import Lists
from darkroom.scripts.xyz_axes import AXES, axes_of, read_values, split

LISTS = Lists()
BY_LABEL = {axis.label: axis for axis in AXES}


def values(label: str, text: str) -> list[object]:
    return list(read_values(BY_LABEL[label], text, (), LISTS, "x"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4, 5", [4, 5]),
        ("1-4", [1, 2, 3, 4]),
        ("1-10 (+3)", [1, 4, 7, 10]),
        ("10-1 (-3)", [10, 7, 4, 1]),
        ("1-10 [4]", [1, 4, 7, 10]),
        ("1-10 [3]", [1, 5, 10]),
        ("-1", [-1]),
        ("3,5-6", [3, 5, 6]),
    ],
)
def test_whole_numbers_may_be_ranges(text: str, expected: list[int]) -> None:
    assert values("Steps", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", [1.5]),
        ("0-1 (+0.25)", [0, 0.25, 0.5, 0.75, 1]),
        ("0-1 [3]", [0, 0.5, 1]),
        ("-1.5-0.5 (+1)", [-1.5, -0.5, 0.5]),
    ],
)
def test_numbers_may_be_ranges(text: str, expected: list[float]) -> None:
    assert values("CFG Scale", text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["x", "1-x", "1-9 (+0)", "9-1 (+1)", "1-9 [0]", "1-9 [99999]", "1e999"])
def test_what_is_no_number_and_no_range_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        values("CFG Scale", text)


def test_entries_may_be_quoted() -> None:
    assert split('a, "b, c" , d\ne') == ["a", "b, c", "d", "e"]


@given(st.text(max_size=60))
def test_no_text_of_values_breaks_the_reader(text: str) -> None:
    for label in ("Steps", "CFG Scale", "Size", "Prompt S/R"):
        with suppress(BadRequest):
            assert len(values(label, text)) <= 61 * 1000


def test_both_tabs_number_their_axes_as_clients_know_them() -> None:
    txt2img = [axis.label for axis in axes_of("txt2img")]
    img2img = [axis.label for axis in axes_of("img2img")]
    assert [txt2img.index(label) for label in ("Hires steps", "Sampler", "VAE", "Styles", "Size")] == [5, 9, 29, 30, 41]
    assert [img2img.index(label) for label in ("Image CFG Scale", "Sampler", "VAE", "Styles", "Size")] == [
        6,
        9,
        28,
        29,
        40,
    ]
