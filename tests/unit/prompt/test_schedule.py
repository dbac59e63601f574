"""Prompt editing, against schedules that the original program gave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.schedule import Entry, Timeline, entry_at, schedule

TEN = Timeline(steps=10)

SCHEDULED: list[tuple[str, list[tuple[int, str]]]] = [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (10, "a b")]),
    ("a [b: 3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ("a [b:c:0] d", [(10, "a c d")]),
    ("a [b:c:1.0]", [(10, "a b")]),
    ("a [b:c:1]", [(1, "a b"), (10, "a c")]),
    ("[b:c:0.05]", [(10, "c")]),
    ("a [b:c:-1]", [(10, "a c")]),
    ("a [b:c:99]", [(10, "a b")]),
    ("[a:b:2.5]", [(10, "a")]),
    ("[a:b:5.]", [(10, "a")]),
    ("[a:b:5e0]", [(5, "a"), (10, "b")]),
    ("[a:b:1e-1]", [(10, "b")]),
    ("[a:b:1e999]", [(10, "a")]),
    ("[a:b:0.999]", [(9, "a"), (10, "b")]),
    ("[a:b:0.1][c:d:0.1]", [(1, "ac"), (10, "bd")]),
    ("[a::5]", [(5, "a"), (10, "")]),
    ("[a: :5]", [(5, "a"), (10, " ")]),
    ("x [a:b:5] [", [(5, "x a ["), (10, "x b [")]),
    ("x ] [a:b:5]", [(5, "x ] a"), (10, "x ] b")]),
    ("a (b [c:d:4]:1.3) e", [(4, "a (b c:1.3) e"), (10, "a (b d:1.3) e")]),
    (r"[a\:b:c:5]", [(5, r"a\:b"), (10, "c")]),
    ("[a:b:5]:", [(5, "a:"), (10, "b:")]),
    ("[[a:b:2]:c:5]", [(2, "a"), (5, "b"), (10, "c")]),
]

ALTERNATING = [
    ("[a|(b:1.1)]", "a|(b:1.1)|a|(b:1.1)|a|(b:1.1)|a|(b:1.1)|a|(b:1.1)"),
    ("[fe|]male", "female|male|female|male|female|male|female|male|female|male"),
    ("[fe|||]male", "female|male|male|male|female|male|male|male|female|male"),
    ("[[a|b]:c:5]", "a|b|a|b|a|c|c|c|c|c"),
    ("[a:[b|c]:5]", "a|a|a|a|a|c|b|c|b|c"),
    ("[a:b:3] [c|d]", "a c|a d|a c|b d|b c|b d|b c|b d|b c|b d"),
]

LITERAL = [
    "[a]",
    "[a|b:c:5]",
    "[a:b:c:5]",
    "[a:b:c]",
    "[a:b]",
    "a|b",
    "[a|(b|c)]",
    r"\[a:b:5\]",
    "(a|b) [c:d:5]",
    "[c:d:5] a|b",
    "[c:d:5] \\",
    "[c:d:5] \\\n a",
    "",
]

PROMPTS = st.text("ab[]():|\\ 5.-e", max_size=60) | st.text()


def entries(*pairs: tuple[int, str]) -> list[Entry]:
    return [Entry(*pair) for pair in pairs]


@pytest.mark.parametrize(("text", "expected"), SCHEDULED)
def test_a_prompt_has_the_recorded_schedule(text: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(text, TEN) == entries(*expected)


@pytest.mark.parametrize(("text", "expected"), ALTERNATING)
def test_an_alternation_changes_at_every_call(text: str, expected: str) -> None:
    assert schedule(text, TEN) == entries(*enumerate(expected.split("|"), start=1))


@pytest.mark.parametrize("text", LITERAL)
def test_what_does_not_fit_the_grammar_stays_as_it_is(text: str) -> None:
    assert schedule(text, TEN) == entries((10, text))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("5", [(10, "b")]),
        ("15", [(5, "a"), (10, "b")]),
        ("0.5", [(10, "b")]),
        ("1.5", [(5, "a"), (10, "b")]),
        ("2.0", [(10, "a")]),
        ("10", [(10, "b")]),
        ("11", [(1, "a"), (10, "b")]),
    ],
)
def test_a_second_pass_counts_on_from_the_first(when: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(f"[a:b:{when}]", Timeline(steps=10, first_pass=10)) == entries(*expected)


def test_a_second_pass_alternates_from_its_own_first_call() -> None:
    second = schedule("[a|b]", Timeline(steps=4, first_pass=3))
    assert second == entries((1, "a"), (2, "b"), (3, "a"), (4, "b"))


def test_a_longer_second_pass_has_longer_fractions() -> None:
    assert schedule("[a:b:1.5]", Timeline(steps=20, first_pass=10)) == entries((10, "a"), (20, "b"))


@pytest.mark.parametrize(("when", "until"), [("0.5", 5), ("5", 5), ("5.0", 5), (".25", 2)])
def test_old_rules_ask_for_the_size_of_the_number_only(when: str, until: int) -> None:
    assert schedule(f"[a:b:{when}]", Timeline(steps=10, old_rules=True)) == entries((until, "a"), (10, "b"))
    second = Timeline(steps=30, first_pass=10, old_rules=True)
    assert schedule(f"[a:b:{when}]", second) == entries((until, "a"), (10, "b"))


@given(PROMPTS, st.integers(1, 40), st.none() | st.integers(1, 40), st.booleans())
def test_any_text_has_a_schedule_that_ascends_to_its_end(
    text: str, steps: int, first_pass: int | None, old: bool
) -> None:
    timeline = Timeline(steps=steps, first_pass=first_pass, old_rules=old)
    untils = [entry.until for entry in schedule(text, timeline)]
    assert untils == sorted(set(untils))
    assert untils[-1] == timeline.length


@given(st.text("ab[]() :,\n", max_size=60))
def test_text_without_numbers_and_bars_is_left_alone(text: str) -> None:
    assert schedule(text, TEN) == entries((10, text))


@pytest.mark.parametrize("text", ["[" * 5000 + "a" + ":1]" * 5000, "(" * 5000 + ")" * 5000, "[" * 5000, "[a|" * 5000])
def test_deep_nesting_is_harmless(text: str) -> None:
    assert schedule(text, TEN)[-1].until == 10


def test_an_edit_at_five_shows_the_first_text_for_six_calls() -> None:
    edited = schedule("[a:b:5]", TEN)
    assert [edited[entry_at(edited, call)].text for call in range(12)] == [*"aaaaaa", *"bbbbb", "a"]
