"""From weighted text to the fixed-length token sequences of CLIP's text encoders. Knows token ids, no tensors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A name, as `tokens`, for which `vectors` learned ones stand in."""

    name: str
    tokens: tuple[int, ...]
    vectors: int


Glossary = Mapping[int, Sequence[Concept]]
"""Concepts by their first token, the longest names first."""


@dataclass(frozen=True, slots=True)
class Insertion:
    """Where in a chunk (0..76) the vectors of a concept begin."""

    place: int
    name: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One encoder input: 77 ids from start to end or padding, and a weight for each (1 outside the text)."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    insertions: tuple[Insertion, ...] = ()


def glossary(concepts: Iterable[Concept]) -> Glossary:
    """Sort concepts for `chunk`; of two whose names are the same tokens the earlier one counts."""
    found: dict[int, list[Concept]] = {}
    for concept in concepts:
        if concept.tokens:
            found.setdefault(concept.tokens[0], []).append(concept)
    return {first: sorted(same, key=lambda concept: -len(concept.tokens)) for first, same in found.items()}


class _Page:
    """The chunk being filled, and the chunks that are full."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.full: list[Chunk] = []
        self._tokens: list[int] = []
        self._weights: list[float] = []
        self._insertions: list[Insertion] = []
        self._last_comma: int | None = None

    def add(self, token: int, weight: float, concept: Concept | None, comma_backtrack: int) -> None:
        """Add a token, or the concept whose name begins there."""
        if token == self._vocabulary.comma:
            self._last_comma = len(self._tokens)  # A1111: noted before the full chunk is closed, and then forgotten
        elif len(self._tokens) == CHUNK_TOKENS and self._comma_within(comma_backtrack):
            self._close_after_comma()
        if len(self._tokens) == CHUNK_TOKENS:
            self.close()
        if concept is None:
            self._tokens.append(token)
            self._weights.append(weight)
        else:
            self._insert(concept, weight)

    def _insert(self, concept: Concept, weight: float) -> None:
        if len(self._tokens) + concept.vectors > CHUNK_TOKENS:
            self.close()
        self._insertions.append(Insertion(1 + len(self._tokens), concept.name))  # the start token comes first
        self._tokens += [0] * concept.vectors
        self._weights += [weight] * concept.vectors

    def close(self) -> None:
        """Finish the current chunk, even an empty one."""
        self.full.append(_finished(self._tokens, self._weights, self._vocabulary, tuple(self._insertions)))
        self._tokens, self._weights, self._insertions, self._last_comma = [], [], [], None

    def chunks(self) -> list[Chunk]:
        if self._tokens or not self.full:
            self.close()
        return self.full

    def _comma_within(self, backtrack: int) -> bool:
        return self._last_comma is not None and backtrack != 0 and CHUNK_TOKENS - self._last_comma <= backtrack

    def _close_after_comma(self) -> None:
        # A1111: insertions do not move on with their places: those behind the comma now lie on the padding.
        cut = (self._last_comma or 0) + 1
        tokens, weights = self._tokens[cut:], self._weights[cut:]
        self._tokens, self._weights = self._tokens[:cut], self._weights[:cut]
        self.close()
        self._tokens, self._weights = tokens, weights


def chunk(
    parts: Iterable[Weighted],
    tokenize: Tokenize,
    vocabulary: Vocabulary,
    comma_backtrack: int = 20,
    concepts: Glossary = MappingProxyType({}),
) -> list[Chunk]:
    """Fill chunks of 75 tokens; a BREAK starts a new one, and no text at all gives one empty chunk.

    When a chunk is full and its last comma lies at most `comma_backtrack` tokens back, what follows that comma moves on
    to the next chunk, so that phrases stay whole; 0 switches that off. The name of a concept gives way to as many
    places as it has vectors, which are never torn apart.
    """
    page = _Page(vocabulary)
    for part in parts:
        if part == BREAK:
            page.close()
            continue
        _fill(page, tokenize(part.text), part.weight, concepts, comma_backtrack)
    return page.chunks()


def only_chunk(
    runs: Iterable[tuple[Sequence[int], float]], vocabulary: Vocabulary, concepts: Glossary = MappingProxyType({})
) -> Chunk:
    """One chunk of the first 75 of some tokens, which come in runs of one weight."""
    page = _Page(vocabulary)
    for tokens, weight in runs:
        _fill(page, tokens, weight, concepts, comma_backtrack=0)
    return page.chunks()[0]


def _fill(page: _Page, tokens: Sequence[int], weight: float, concepts: Glossary, comma_backtrack: int) -> None:
    place = 0
    while place < len(tokens):
        concept = _concept_at(tokens, place, concepts)
        page.add(tokens[place], weight, concept, comma_backtrack)
        place += len(concept.tokens) if concept else 1


def _concept_at(tokens: Sequence[int], place: int, concepts: Glossary) -> Concept | None:
    """The concept with the longest name that stands at this place."""
    same_start = concepts.get(tokens[place], ())
    return next((c for c in same_start if tuple(tokens[place : place + len(c.tokens)]) == c.tokens), None)


def used_concepts(texts: Sequence[Sequence[Chunk]]) -> list[str]:
    """The names of all concepts in texts that are encoded together, chunk by chunk, each once."""
    longest = max(map(len, texts), default=0)
    places = (chunks[k] for k in range(longest) for chunks in texts if k < len(chunks))
    return list(dict.fromkeys(insertion.name for chunk in places for insertion in chunk.insertions))


def count_places(chunks: Sequence[Chunk], vocabulary: Vocabulary) -> int:
    """How many tokens of text there are in the last chunk; those before it count as full."""
    last = chunks[-1].tokens[1:]
    return CHUNK_TOKENS * (len(chunks) - 1) + (last.index(vocabulary.end) if vocabulary.end in last else CHUNK_TOKENS)


def empty_chunk(vocabulary: Vocabulary) -> Chunk:
    """The chunk of no text."""
    return _finished([], [], vocabulary)


def equalised(texts: Sequence[Sequence[Chunk]], vocabulary: Vocabulary) -> list[list[Chunk]]:
    """The chunks of several texts with empty ones appended, so that all have as many as the longest."""
    longest = max((len(chunks) for chunks in texts), default=0)
    return [[*chunks, *[empty_chunk(vocabulary)] * (longest - len(chunks))] for chunks in texts]


def _finished(
    tokens: Sequence[int],
    weights: Sequence[float],
    vocabulary: Vocabulary,
    insertions: tuple[Insertion, ...] = (),
) -> Chunk:
    """Start, text, end, padding. The first end token may lie in the text; everything after it becomes padding."""
    missing = CHUNK_TOKENS - len(tokens)
    ids = [vocabulary.start, *tokens, *[vocabulary.end] * (missing + 1)]
    if vocabulary.pad != vocabulary.end:
        first_end = ids.index(vocabulary.end)
        ids[first_end + 1 :] = [vocabulary.pad] * (len(ids) - first_end - 1)
    return Chunk(tuple(ids), (1.0, *weights, *[1.0] * (missing + 1)), insertions)
