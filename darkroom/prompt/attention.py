"""Attention weights: `(more)`, `[less]`, `(text:1.3)` and the word BREAK. Knows characters only, no tokens.

Whoever wants the text as it stands, brackets and all, uses `[Weighted(text, 1.0)]` instead of `parse`.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1


@dataclass(frozen=True, slots=True)
class Weighted:
    """A piece of prompt, and how much it counts."""

    text: str
    weight: float


BREAK = Weighted("BREAK", -1.0)
"""Closes a chunk. A1111: its weight is multiplied by brackets around it, and then it is text."""

_TOKEN = re.compile(
    r"""
    \\ (?P<escaped>[()\[\]\\]?)
    | (?P<open>[(\[])
    | : \s* (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)) \s* \)
    | (?P<close>[)\]])
    | (?P<plain>[^\\()\[\]:]+ | :)
    """,
    re.VERBOSE,
)
_NUMBERLIKE = re.compile(r"\\[()\\]|:\s*(?P<number>[+-]?[.\d]+)\s*\)|[()]")
_BREAK_WORD = re.compile(r"\s*\bBREAK\b\s*")


class _Segments:
    """The segments read so far, and where the brackets that are still open began."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.weights: list[float] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def add(self, text: str, weight: float = 1.0) -> None:
        self.texts.append(text)
        self.weights.append(weight)

    def add_plain(self, text: str) -> None:
        for i, piece in enumerate(_BREAK_WORD.split(text)):
            if i:
                self.add(BREAK.text, BREAK.weight)
            self.add(piece)

    def open(self, bracket: str) -> None:
        self._open[bracket].append(len(self.texts))

    def close(self, bracket: str, factor: float) -> bool:
        """Multiply everything since the last such bracket; False if none is open."""
        if not self._open[bracket]:
            return False
        start = self._open[bracket].pop()
        self.weights[start:] = [weight * factor for weight in self.weights[start:]]
        return True

    def close_all(self) -> None:
        for bracket, factor in (("(", ROUND_FACTOR), ("[", SQUARE_FACTOR)):
            while self.close(bracket, factor):
                pass

    def joined(self) -> Iterator[Weighted]:
        """Neighbours of equal weight as one; no text at all is one empty segment."""
        pairs = zip(self.texts, self.weights, strict=True)
        for weight, group in groupby(pairs, key=lambda pair: pair[1]):
            yield Weighted("".join(text for text, _ in group), weight)
        if not self.texts:
            yield Weighted("", 1.0)


def parse(text: str) -> list[Weighted]:
    """Split a prompt into weighted segments; any text is valid, brackets that match nothing are text."""
    segments = _Segments()
    for token in _TOKEN.finditer(text):
        _read(token, segments)
    segments.close_all()
    return list(segments.joined())


def _read(token: re.Match[str], segments: _Segments) -> None:
    match token.lastgroup:
        case "escaped":
            segments.add(token["escaped"])
        case "open":
            segments.open(token["open"])
        case "number":
            # A number too large for a float is text. A1111: so would be 1.2.3, but there it fails the request.
            if not (math.isfinite(float(token["number"])) and segments.close("(", float(token["number"]))):
                segments.add_plain(token[0])
        case "close":
            opening, factor = ("(", ROUND_FACTOR) if token["close"] == ")" else ("[", SQUARE_FACTOR)
            if not segments.close(opening, factor):
                segments.add_plain(token[0])
        case _:
            segments.add_plain(token[0])


def segments(text: str, emphasis: str) -> list[Weighted]:
    """A prompt in weighted segments; with the emphasis "None" it is one, brackets and all."""
    return [Weighted(text, 1.0)] if emphasis == "None" else parse(text)


def find_malformed_weight(text: str) -> str | None:
    """The first weight that closes a bracket and is made of digits and dots, but is no number: `(a:1.2.3)`."""
    depth = 0
    for token in _NUMBERLIKE.finditer(text):
        number = token["number"]
        if number is not None and depth and not _is_number(number):
            return number
        if token[0] == "(":
            depth += 1
        elif token[0].endswith(")") and not token[0].startswith("\\"):
            depth = max(depth - 1, 0)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def has_attention(texts: Iterable[str]) -> bool:
    """Whether any text holds a bracket, so that the way of emphasis matters to it."""
    return any(bracket in text for text in texts for bracket in "([")
