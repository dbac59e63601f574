"""Chunks of tokens, with a tokenizer that knows words of one token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.attention import BREAK, Weighted, parse
from darkroom.prompt.chunks import (
    CHUNK_TOKENS,
    Chunk,
    Concept,
    Insertion,
    Vocabulary,
    chunk,
    empty_chunk,
    equalised,
    glossary,
    used_concepts,
)

CLIP = Vocabulary()
OPEN_CLIP = Vocabulary(pad=0)


def tokenize(text: str) -> list[int]:
    """Words are token 5, commas are commas, `</s>` is the end token."""
    return [{",": 267, "</s>": 49407}.get(word, 5) for word in text.replace(",", " , ").split()]


def words(n: int) -> str:
    return "w " * n


def real_tokens(text: str, comma_backtrack: int = 20) -> list[int]:
    chunks = chunk(parse(text), tokenize, CLIP, comma_backtrack)
    return [one.tokens.index(CLIP.end) - 1 for one in chunks]


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        (words(60) + "," + words(30), [61, 30]),
        (words(55) + "," + words(40), [56, 40]),
        (words(54) + "," + words(40), [75, 20]),
        (words(76), [75, 1]),
        (words(75) + "," + words(10), [75, 11]),
        (words(74) + "," + words(10), [75, 10]),
        ("w BREAK w", [1, 1]),
        (words(75) + "BREAK w", [75, 1]),
        ("w BREAK", [1]),
        ("BREAK w", [0, 1]),
        ("w BREAK BREAK w", [1, 0, 1]),
        ("", [0]),
        ("BREAK", [0]),
    ],
)
def test_chunks_are_filled_as_recorded(text: str, lengths: list[int]) -> None:
    assert real_tokens(text) == lengths


def test_the_comma_rule_can_be_switched_off() -> None:
    text = words(60) + "," + words(30)
    assert real_tokens(text, comma_backtrack=0) == [75, 16]
    without = chunk(parse(text), tokenize, Vocabulary(comma=None))
    assert without == chunk(parse(text), tokenize, CLIP, comma_backtrack=0)


def test_moved_tokens_keep_their_weights() -> None:
    parts = [Weighted(words(70) + ",", 1.0), Weighted(words(10), 1.3)]
    first, second = chunk(parts, tokenize, CLIP)
    assert set(first.weights) == {1.0}
    assert second.weights == (1.0, *[1.3] * 10, *[1.0] * 66)


def test_an_empty_prompt_is_start_end_and_padding() -> None:
    assert chunk(parse(""), tokenize, CLIP) == [empty_chunk(CLIP)]
    assert empty_chunk(CLIP) == Chunk((49406, *[49407] * 76), (1.0,) * 77)
    assert empty_chunk(OPEN_CLIP).tokens == (49406, 49407, *[0] * 75)


def test_padding_starts_after_the_first_end_token_even_one_in_the_text() -> None:
    [one] = chunk([Weighted("w </s> w", 1.0)], tokenize, OPEN_CLIP)
    assert one.tokens == (49406, 5, 49407, *[0] * 74)


PARTS = st.lists(
    st.one_of(
        st.just(BREAK),
        st.builds(Weighted, st.text("w, ", max_size=300), st.sampled_from([0.5, 1.0, 1.3])),
    ),
    max_size=6,
)


@given(PARTS, st.integers(0, 80), st.sampled_from([CLIP, OPEN_CLIP]))
def test_no_token_is_lost_and_every_chunk_is_77_long(
    parts: list[Weighted], backtrack: int, vocabulary: Vocabulary
) -> None:
    chunks = chunk(parts, tokenize, vocabulary, backtrack)
    assert chunks
    assert all(len(one.tokens) == len(one.weights) == CHUNK_TOKENS + 2 for one in chunks)
    assert all(one.tokens[0] == vocabulary.start and vocabulary.end in one.tokens for one in chunks)
    read = [
        (token, weight)
        for one in chunks
        for token, weight in list(zip(one.tokens, one.weights, strict=True))[1 : one.tokens.index(vocabulary.end)]
    ]
    assert read == [(token, part.weight) for part in parts if part != BREAK for token in tokenize(part.text)]


def test_texts_of_one_prompt_get_equally_many_chunks() -> None:
    short, long = chunk(parse("w"), tokenize, CLIP), chunk(parse("w BREAK w"), tokenize, CLIP)
    assert equalised([short, long], CLIP) == [[*short, empty_chunk(CLIP)], long]
    assert equalised([], CLIP) == []


def concept(name: str, tokens: tuple[int, ...] = (7,), vectors: int = 3) -> Concept:
    return Concept(name=name, tokens=tokens, vectors=vectors)


def letters(text: str) -> list[int]:
    """Words are token 5, commas are commas, a single small letter is its place in the alphabet plus 10."""
    known = {",": 267} | {letter: 10 + i for i, letter in enumerate("abcdef")}
    return [known.get(word, 5) for word in text.replace(",", " , ").split()]


def test_a_concept_takes_as_many_places_as_it_has_vectors_with_the_weight_of_its_name() -> None:
    concepts = glossary([concept("ab", (10, 11), 3)])
    [one] = chunk([Weighted("w a b w", 1.2)], letters, CLIP, concepts=concepts)
    assert one.tokens[:7] == (CLIP.start, 5, 0, 0, 0, 5, CLIP.end)
    assert one.weights[:7] == (1.0, *[1.2] * 5, 1.0)
    assert one.insertions == (Insertion(2, "ab"),)


def test_the_longest_name_wins_and_among_equals_the_first() -> None:
    concepts = glossary(
        [concept("a", (10,)), concept("abc", (10, 11, 12)), concept("ab", (10, 11)), concept("AB", (10, 11))]
    )
    texts = {"a": "a w", "ab": "a b w", "abc": "a b c", "": "b c"}
    for name, text in texts.items():
        used = used_concepts([chunk([Weighted(text, 1.0)], letters, CLIP, concepts=concepts)])
        assert used == ([name] if name else [])


def test_a_name_that_is_torn_apart_by_a_weight_is_text() -> None:
    concepts = glossary([concept("ab", (10, 11))])
    [one] = chunk([Weighted("a", 1.0), Weighted("b", 1.1)], letters, CLIP, concepts=concepts)
    assert one.insertions == ()


def test_a_concept_that_does_not_fit_begins_the_next_chunk() -> None:
    concepts = glossary([concept("a", (10,), 3)])
    first, second = chunk([Weighted(words(73) + "a", 1.0)], letters, CLIP, concepts=concepts)
    assert first.tokens.index(CLIP.end) - 1 == 73
    assert first.insertions == ()
    assert second.insertions == (Insertion(1, "a"),)


def test_a_concept_behind_a_comma_leaves_its_vectors_on_the_padding_when_it_moves_on() -> None:
    concepts = glossary([concept("a", (10,), 2)])
    text = words(60) + ", w a " + words(12)
    first, second = chunk([Weighted(text, 1.0)], letters, CLIP, concepts=concepts)
    assert first.tokens.index(CLIP.end) - 1 == 61
    assert first.insertions == (Insertion(63, "a"),)
    assert second.tokens[1:4] == (5, 0, 0)
    assert second.insertions == ()


def test_concepts_are_told_chunk_by_chunk_each_once() -> None:
    concepts = glossary([concept("a", (10,)), concept("b", (11,)), concept("c", (12,))])
    texts = [chunk(parse(text), letters, CLIP, concepts=concepts) for text in ("b BREAK a b", "w c", "b")]
    assert used_concepts(texts) == ["b", "c", "a"]
