import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.ui.words import Words, choose_language, languages, read_words

KNOWN = ("en", "zh")


def test_english_needs_no_file() -> None:
    assert languages()[0] == "en"
    assert read_words("en")("Steps") == "Steps"


def test_a_text_that_nobody_translated_stays_english() -> None:
    words = Words(language="xx", table={"Steps": "Schritte", "Seed": ""})
    assert (words("Steps"), words("Seed"), words("Width")) == ("Schritte", "Seed", "Width")


def test_places_are_filled_in_either_language() -> None:
    words = Words(language="xx", table={"{n} pictures": "{n} Bilder"})
    assert (words("{n} pictures", n=3), Words()("{n} pictures", n=3)) == ("3 Bilder", "3 pictures")


def test_braces_of_a_text_without_values_are_no_places() -> None:
    assert Words()("{prompt} stands for itself") == "{prompt} stands for itself"


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,zh;q=0.9", "en"),
        ("fr;q=0.9,ZH-hant;q=0.5", "zh"),
        ("en;q=0.1,zh;q=0.2", "zh"),
        ("", "en"),
        ("*", "en"),
        ("zh;q=high", "en"),
    ],
)
def test_the_language_is_the_first_that_is_known(wanted: str, chosen: str) -> None:
    assert choose_language(wanted, KNOWN) == chosen


@given(st.text())
def test_any_header_gives_a_known_language(wanted: str) -> None:
    assert choose_language(wanted, KNOWN) in KNOWN
