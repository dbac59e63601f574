"""Strengths of an adapter block by block, as prompts have them: `lbw=1,0,0.5,...` or `lbw=OUTALL`. Knows the lists that
are in use, and no network.

The notation is that of the LoRA block weight extension for AUTOMATIC1111's web UI. BASE are the text encoders; IN, MID
and OUT count the blocks of a UNet in the original's order.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from darkroom.errors import BadRequest

BlockWeights = tuple[tuple[str, float], ...]
"""A factor for each block by its name; blocks that are not named have 0, and what lies in no block has 1."""

MAX_FACTOR = 100.0


def _numbered(side: str, numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{side}{number:02}" for number in numbers)


LISTS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        12: ("BASE", *_numbered("IN", (4, 5, 7, 8)), "MID", *_numbered("OUT", range(6))),
        17: ("BASE", *_numbered("IN", (1, 2, 4, 5, 7, 8)), "MID", *_numbered("OUT", range(3, 12))),
        20: ("BASE", *_numbered("IN", range(9)), "MID", *_numbered("OUT", range(9))),
        26: ("BASE", *_numbered("IN", range(12)), "MID", *_numbered("OUT", range(12))),
    }
)
"""What as many numbers stand for: the blocks with attention, or all, of SDXL (12, 20) and of 1.x and 2.x (17, 26)."""

# Those that come with the extension; their numbers are for the blocks with attention of 1.x.
_NAMED = MappingProxyType(
    {
        "NONE": (0,) * 17,
        "ALL": (1,) * 17,
        "INS": (1,) * 4 + (0,) * 13,
        "IND": (1, 0, 0, 0, 1, 1, 1) + (0,) * 10,
        "INALL": (1,) * 7 + (0,) * 10,
        "MIDD": (1, 0, 0, 0) + (1,) * 8 + (0,) * 5,
        "OUTD": (1,) + (0,) * 7 + (1,) * 4 + (0,) * 5,
        "OUTS": (1,) + (0,) * 11 + (1,) * 5,
        "OUTALL": (1,) + (0,) * 7 + (1,) * 9,
        "ALL0.5": (0.5,) * 17,
    }
)


def read_block_weights(text: str) -> BlockWeights:
    """The factors that a text asks for. Raises BadRequest for another number of them, or for what is no number."""
    named = _NAMED.get(text.strip())
    if named is not None:
        return tuple(zip(LISTS[17], map(float, named), strict=True))
    try:
        factors = [float(part) for part in text.split(",")]
    except ValueError:
        factors = []
    if len(factors) not in LISTS or not all(-MAX_FACTOR <= factor <= MAX_FACTOR for factor in factors):
        counts = ", ".join(map(str, LISTS))
        raise BadRequest(
            "lbw", text[:80], f"{counts} numbers up to {MAX_FACTOR:.0f} with commas, or one of {', '.join(_NAMED)}"
        )
    return tuple(zip(LISTS[len(factors)], factors, strict=True))
