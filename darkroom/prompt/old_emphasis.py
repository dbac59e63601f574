"""A1111's former way of reading brackets: the text becomes tokens as it is, and brackets among them change the weight.

Knows token ids and their spelling, no tensors.
"""

from collections.abc import Iterator, Mapping, Sequence

from darkroom.prompt.attention import ROUND_FACTOR
from darkroom.prompt.chunks import Chunk, Glossary, Tokenize, Vocabulary, only_chunk

_LOUDER, _SOFTER = "(]", ")["


def bracket_factors(spellings: Mapping[str, int]) -> dict[int, float]:
    """What the tokens with brackets in their spelling multiply the weight by; pairs that cancel out are text."""
    factors: dict[int, float] = {}
    for spelling, token in spellings.items():
        louder = sum(spelling.count(bracket) for bracket in _LOUDER)
        softer = sum(spelling.count(bracket) for bracket in _SOFTER)
        if louder != softer:
            factors[token] = ROUND_FACTOR ** (louder - softer)
    return factors


def chunk_old(
    text: str, tokenize: Tokenize, factors: Mapping[int, float], vocabulary: Vocabulary, concepts: Glossary
) -> Chunk:
    """The only chunk of a text, cut after 75 tokens. With no `factors` brackets are text."""
    return only_chunk(_runs(tokenize(text), factors), vocabulary, concepts)


def _runs(tokens: Sequence[int], factors: Mapping[int, float]) -> Iterator[tuple[Sequence[int], float]]:
    """The tokens between brackets, each run with its weight."""
    weight, start = 1.0, 0
    for place, token in enumerate(tokens):
        if token in factors:
            yield tokens[start:place], weight
            weight, start = weight * factors[token], place + 1
    yield tokens[start:], weight
