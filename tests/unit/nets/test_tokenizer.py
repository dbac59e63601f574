"""CLIP's byte pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.nets.tokenizer import BOS, EOS, ClipTokenizer, clean

TOKENIZER = ClipTokenizer()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a cat on a red sofa", [320, 2368, 525, 320, 736, 15723]),
        (",", [267]),
        ("hello world!", [3306, 1002, 256]),
        ("2024", [273, 271, 273, 275]),
    ],
)
def test_known_texts_have_their_known_ids(text: str, ids: list[int]) -> None:
    assert TOKENIZER.tokenize(text) == ids


def test_case_and_white_space_do_not_count() -> None:
    assert TOKENIZER.tokenize("  A\tRED\n\ncat ") == TOKENIZER.tokenize("a red cat")


def test_contractions_stand_alone() -> None:
    assert TOKENIZER.tokenize("it's") == [*TOKENIZER.tokenize("it"), *TOKENIZER.tokenize("'s")]


def test_typographic_signs_are_plain_ones() -> None:
    assert clean("“It’s” ﬁne & ＡＢＣ") == '"it\'s" fine & abc'
    assert clean("cats &amp; dogs") == "cats & dogs"
    assert clean("<b> &amp;") == "<b> &amp;"


def test_the_special_words_are_special_tokens() -> None:
    assert TOKENIZER.tokenize("<|startoftext|>cat<|endoftext|>") == [BOS, 2368, EOS]


def test_long_texts_are_not_cut() -> None:
    assert len(TOKENIZER.tokenize("cat " * 500)) == 500


@given(st.text(max_size=60))
def test_any_text_has_tokens_within_the_vocabulary(text: str) -> None:
    assert all(0 <= token <= EOS for token in TOKENIZER.tokenize(text))


@given(st.lists(st.sampled_from(["a", "red", "cat", "42", "日本", "naïve", "🐕"]), max_size=8))
def test_words_are_tokenised_one_by_one(words: list[str]) -> None:
    apart = [token for word in words for token in TOKENIZER.tokenize(word)]
    assert TOKENIZER.tokenize(" ".join(words)) == apart
