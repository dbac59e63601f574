"""AND."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.composition import Part, split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a AND b", [("a", 1.0), (" b", 1.0)]),
        ("a :1.2 AND b:0.5", [("a", 1.2), (" b", 0.5)]),
        ("a AND", [("a", 1.0), ("", 1.0)]),
        ("aANDb", [("aANDb", 1.0)]),
        ("a and b", [("a and b", 1.0)]),
        ("a, AND, b", [("a,", 1.0), (", b", 1.0)]),
        ("a:1.2", [("a", 1.2)]),
        ("a: -.5 ", [("a", -0.5)]),
        ("a:+1.", [("a", 1.0)]),
        ("a:1:2", [("a:1", 2.0)]),
        ("(a cat:1.2)", [("(a cat:1.2)", 1.0)]),
        ("a:1e3", [("a:1e3", 1.0)]),
        ("a:.", [("a:.", 1.0)]),
        ("", [("", 1.0)]),
        (":2", [("", 2.0)]),
        ("a:" + "9" * 400, [("a:" + "9" * 400, 1.0)]),
    ],
)
def test_a_prompt_has_these_parts(text: str, parts: list[tuple[str, float]]) -> None:
    assert split(text) == [Part(*part) for part in parts]


@given(st.text("aAND :.-1\n", max_size=50) | st.text())
def test_any_text_splits(text: str) -> None:
    parts = split(text)
    assert parts
    assert all(part.text == part.text.rstrip() for part in parts)


WORDS = st.text("abc, ", max_size=10).map(str.strip)


@given(st.lists(st.tuples(WORDS, st.integers(-300, 300)), min_size=1, max_size=5))
def test_printing_and_splitting_agree(parts: list[tuple[str, int]]) -> None:
    text = " AND ".join(f"{words}:{hundredths / 100}" for words, hundredths in parts)
    assert [(part.text.lstrip(), part.weight) for part in split(text)] == [(words, h / 100) for words, h in parts]
