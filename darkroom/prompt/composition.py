"""Composable prompts: `a cat AND a dog:0.5` is two prompts, each pulling with its weight. Knows text only.

Liu et al. 2022, arXiv:2206.01714: each part's guidance is weighted and added.
"""

import math
import re
from dataclasses import dataclass

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s*([+-]?(?:\d*\.\d+|\d+\.?))\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the prompts that are composed; weights may be zero or negative."""

    text: str
    weight: float = 1.0


def split(text: str) -> list[Part]:
    """Split a positive prompt at the word AND and read each part's trailing `:weight`.

    A1111: the weight is read without any AND as well, so `a cat:1.2` is guided 1.2 times as strongly.
    """
    return [_part(piece.rstrip()) for piece in _AND.split(text)]


def _part(text: str) -> Part:
    found = _WEIGHT.search(text)
    if found is None or not math.isfinite(float(found[1])):
        return Part(text)
    return Part(text[: found.start()].rstrip(), float(found[1]))
