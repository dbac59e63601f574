"""From weighted text to the fixed-length token sequences of CLIP's text encoders. Knows token ids, no tensors."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from darkroom.prompt.attention import BREAK, Weighted

CHUNK_TOKENS = 75
"""Tokens of text in one chunk; with the start and the end it is 77 long."""

Tokenize = Callable[[str], Sequence[int]]
"""The ids of a text, without start and end, not truncated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The special ids of a tokenizer. `comma` is the id of `,` as a word, None for encoders without the comma rule."""

    start: int = 49406
    end: int = 49407
    pad: int = 49407
    comma: int | None = 267


@dataclass(frozen=True, slots=True)
class Chunk:
    """One encoder input: 77 ids from start to end or padding, and a weight for each (1 outside the text)."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


class _Page:
    """The chunk being filled, and the chunks that are full."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.full: list[Chunk] = []
        self._tokens: list[int] = []
        self._weights: list[float] = []
        self._last_comma: int | None = None

    def add(self, token: int, weight: float, comma_backtrack: int) -> None:
        if token == self._vocabulary.comma:
            self._last_comma = len(self._tokens)  # A1111: noted before the full chunk is closed, and then forgotten
        elif len(self._tokens) == CHUNK_TOKENS and self._comma_within(comma_backtrack):
            self._close_after_comma()
        if len(self._tokens) == CHUNK_TOKENS:
            self.close()
        self._tokens.append(token)
        self._weights.append(weight)

    def close(self) -> None:
        """Finish the current chunk, even an empty one."""
        self.full.append(_finished(self._tokens, self._weights, self._vocabulary))
        self._tokens, self._weights, self._last_comma = [], [], None

    def chunks(self) -> list[Chunk]:
        if self._tokens or not self.full:
            self.close()
        return self.full

    def _comma_within(self, backtrack: int) -> bool:
        return self._last_comma is not None and backtrack != 0 and CHUNK_TOKENS - self._last_comma <= backtrack

    def _close_after_comma(self) -> None:
        cut = (self._last_comma or 0) + 1
        tokens, weights = self._tokens[cut:], self._weights[cut:]
        self._tokens, self._weights = self._tokens[:cut], self._weights[:cut]
        self.close()
        self._tokens, self._weights = tokens, weights


def chunk(
    parts: Iterable[Weighted], tokenize: Tokenize, vocabulary: Vocabulary, comma_backtrack: int = 20
) -> list[Chunk]:
    """Fill chunks of 75 tokens; a BREAK starts a new one, and no text at all gives one empty chunk.

    When a chunk is full and its last comma lies at most `comma_backtrack` tokens back, what follows that comma moves on
    to the next chunk, so that phrases stay whole; 0 switches that off.
    """
    page = _Page(vocabulary)
    for part in parts:
        if part == BREAK:
            page.close()
            continue
        for token in tokenize(part.text):
            page.add(token, part.weight, comma_backtrack)
    return page.chunks()


def empty_chunk(vocabulary: Vocabulary) -> Chunk:
    """The chunk of no text."""
    return _finished([], [], vocabulary)


def equalised(texts: Sequence[Sequence[Chunk]], vocabulary: Vocabulary) -> list[list[Chunk]]:
    """The chunks of several texts with empty ones appended, so that all have as many as the longest."""
    longest = max((len(chunks) for chunks in texts), default=0)
    return [[*chunks, *[empty_chunk(vocabulary)] * (longest - len(chunks))] for chunks in texts]


def _finished(tokens: Sequence[int], weights: Sequence[float], vocabulary: Vocabulary) -> Chunk:
    """Start, text, end, padding. The first end token may lie in the text; everything after it becomes padding."""
    missing = CHUNK_TOKENS - len(tokens)
    ids = [vocabulary.start, *tokens, *[vocabulary.end] * (missing + 1)]
    if vocabulary.pad != vocabulary.end:
        first_end = ids.index(vocabulary.end)
        ids[first_end + 1 :] = [vocabulary.pad] * (len(ids) - first_end - 1)
    return Chunk(tuple(ids), (1.0, *weights, *[1.0] * (missing + 1)))
