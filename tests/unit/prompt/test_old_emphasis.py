"""The former way of emphasis, with a tokenizer that knows words and brackets of one token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.chunks import CHUNK_TOKENS, Concept, Insertion, Vocabulary, glossary
from darkroom.prompt.old_emphasis import bracket_factors, chunk_old

SPELLINGS = {"(</w>": 1, ")</w>": 2, "[</w>": 3, "]</w>": 4, "cat</w>": 5, "((</w>": 6, "()</w>": 7, "dog</w>": 8}
CLIP = Vocabulary()
FACTORS = bracket_factors(SPELLINGS)


def tokenize(text: str) -> list[int]:
    return [SPELLINGS[f"{word}</w>"] for word in text.split()]


def read(text: str) -> list[tuple[int, float]]:
    """The tokens of the text with their weights."""
    chunk = chunk_old(text, tokenize, FACTORS, CLIP, {})
    end = chunk.tokens.index(CLIP.end)
    return list(zip(chunk.tokens, chunk.weights, strict=True))[1:end]


def test_brackets_that_cancel_out_are_text() -> None:
    assert list(FACTORS) == [1, 2, 3, 4, 6]
    assert list(FACTORS.values()) == pytest.approx([1.1, 1 / 1.1, 1 / 1.1, 1.1, 1.21])


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("cat dog", [1, 1]),
        ("( cat ) dog", [1.1, 1]),
        ("(( cat ) dog ) cat", [1.21, 1.1, 1]),
        ("[ cat ] dog", [1 / 1.1, 1]),
        ("( cat [ dog", [1.1, 1]),
        ("cat ) dog", [1, 1 / 1.1]),
        ("()", [1]),
    ],
)
def test_a_bracket_changes_the_weight_of_all_that_follows(text: str, weights: list[float]) -> None:
    assert [weight for _, weight in read(text)] == pytest.approx(weights)


def test_without_factors_brackets_are_text() -> None:
    chunk = chunk_old("( cat )", tokenize, {}, CLIP, {})
    assert chunk.tokens[1:4] == (1, 5, 2)
    assert set(chunk.weights) == {1.0}


def test_a_concept_has_the_weight_at_its_place() -> None:
    concepts = glossary([Concept(name="cat", tokens=(5,), vectors=2)])
    chunk = chunk_old("dog ( cat", tokenize, FACTORS, CLIP, concepts)
    assert chunk.insertions == (Insertion(2, "cat"),)
    assert chunk.weights[1:5] == (1.0, 1.1, 1.1, 1.0)


@given(st.lists(st.sampled_from(["cat", "dog", "(", "((", ")", "[", "]", "()"]), max_size=200))
def test_the_first_75_tokens_that_are_no_brackets_are_kept(words: list[str]) -> None:
    kept = [SPELLINGS[f"{word}</w>"] for word in words if word in {"cat", "dog", "()"}]
    chunk = chunk_old(" ".join(words), tokenize, FACTORS, CLIP, {})
    padded = [*kept, *[CLIP.end] * CHUNK_TOKENS]
    assert list(chunk.tokens[1:]) == [*padded[:CHUNK_TOKENS], CLIP.end]
