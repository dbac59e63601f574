"""Attention weights, against segments that the original program gave."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.attention import BREAK, Weighted, find_malformed_weight, has_attention, parse, segments

PARSED: list[tuple[str, list[tuple[str, float]]]] = [
    ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\]", [("(literal]", 1)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [
            ("a ", 1),
            ("house", 1.573),
            (" ", 1.1),
            ("on", 1),
            (" a ", 1.1),
            ("hill", 0.55),
            (", sun, ", 1.1),
            ("sky", 1.4641),
            (".", 1.1),
        ],
    ),
    ("(a:-1)", [("a", -1)]),
    ("(a: 1.2 )", [("a", 1.2)]),
    ("(a:1.2 )", [("a", 1.2)]),
    ("(a:)", [("a:", 1.1)]),
    ("(a:b)", [("a:b", 1.1)]),
    ("(a:1,2)", [("a:1,2", 1.1)]),
    ("(a]", [("a]", 1.1)]),
    ("[a)", [("a)", 0.90909)]),
    ("(a [b] c)", [("a ", 1.1), ("b", 1), (" c", 1.1)]),
    ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 0.90909)]),
    ("a:1.2)", [("a:1.2)", 1)]),
    ("[a:1.2]", [("a:1.2", 0.90909)]),
    (r"a \\ b \x", [("a \\ b x", 1)]),
    ("", [("", 1)]),
    ("\\", [("", 1)]),
    ("a BREAK b", [("a", 1), ("BREAK", -1), ("b", 1)]),
    ("aBREAK b", [("aBREAK b", 1)]),
    ("a BREAK, b", [("a", 1), ("BREAK", -1), (", b", 1)]),
    ("BREAK a", [("", 1), ("BREAK", -1), ("a", 1)]),
    ("a BREAK BREAK b", [("a", 1), ("BREAK", -1), ("", 1), ("BREAK", -1), ("b", 1)]),
    ("(a BREAK b:1.2)", [("a", 1.2), ("BREAK", -1.2), ("b", 1.2)]),
]

PROMPTS = st.text(alphabet="ab ()[]:\\.,-1BREAK\n", max_size=60) | st.text()


@pytest.mark.parametrize(("text", "segments"), PARSED)
def test_a_prompt_has_the_recorded_segments(text: str, segments: list[tuple[str, float]]) -> None:
    parsed = parse(text)
    assert [segment.text for segment in parsed] == [text for text, _ in segments]
    assert [segment.weight for segment in parsed] == pytest.approx([weight for _, weight in segments], abs=1e-5)


@given(PROMPTS)
def test_any_text_parses_and_neighbours_differ_in_weight(text: str) -> None:
    parsed = parse(text)
    assert parsed
    assert all(left.weight != right.weight for left, right in pairwise(parsed))


@given(PROMPTS)
def test_parsing_only_takes_characters_away(text: str) -> None:
    rest = iter(text)
    kept = "".join(segment.text for segment in parse(text))
    assert all(character in rest for character in kept)


def printed(segment: Weighted) -> str:
    """The segment as a prompt that can mean nothing else."""
    escaped = "".join("\\" + c if c in "()[]\\" else c for c in segment.text)
    return f"({escaped}:{segment.weight})"


SEGMENT = st.builds(
    Weighted,
    st.text(st.characters(exclude_characters=":"), min_size=1, max_size=8).filter(lambda text: "BREAK" not in text),
    st.integers(-200, 200).map(lambda hundredths: hundredths / 100),
)


@given(st.lists(SEGMENT, min_size=1, max_size=6))
def test_printing_and_parsing_agree(segments: list[Weighted]) -> None:
    parsed = parse("".join(printed(segment) for segment in segments))
    spelled = [(character, segment.weight) for segment in segments for character in segment.text]
    assert [(character, segment.weight) for segment in parsed for character in segment.text] == spelled


def test_a_break_is_a_break_only_outside_brackets() -> None:
    assert BREAK in parse("a BREAK b")
    assert BREAK not in parse("(a BREAK b)")


@pytest.mark.parametrize("number", ["1.2.3", ".", "9" * 400])
def test_what_is_no_number_is_text(number: str) -> None:
    assert "".join(segment.text for segment in parse(f"(a:{number})")).startswith(f"a:{number}")


@pytest.mark.parametrize(
    ("text", "malformed"),
    [
        ("(a:1.2.3)", "1.2.3"),
        ("((a:1.2) b: -. )", "-."),
        ("a:1.2.3)", None),
        ("(a) b:1.2.3)", None),
        (r"\(a:1.2.3)", None),
        (r"(\\(a:..)", ".."),
        (r"(a\:1.1.1)", "1.1.1"),
        ("[a:1.2.3]", None),
        ("(a:1.2", None),
        ("(a:b.1)", None),
    ],
)
def test_a_weight_that_is_no_number_is_found(text: str, malformed: str | None) -> None:
    assert find_malformed_weight(text) == malformed


@given(PROMPTS)
def test_a_weight_that_is_found_malformed_is_in_the_text_and_no_number(text: str) -> None:
    found = find_malformed_weight(text)
    if found is not None:
        assert found in text
        with pytest.raises(ValueError, match="convert"):
            float(found)


def test_without_emphasis_a_prompt_is_one_segment_as_it_stands() -> None:
    assert segments("(a:2) BREAK b", "None") == [Weighted("(a:2) BREAK b", 1.0)]
    assert segments("(a:2)", "Ignore") == [Weighted("a", 2.0)]


def test_brackets_tell_that_emphasis_matters() -> None:
    assert has_attention(["plain", "a (b)"])
    assert has_attention(["[c]"])
    assert not has_attention(["plain", "a:1"])
