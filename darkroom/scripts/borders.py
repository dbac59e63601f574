"""How far a picture grows on each side."""

import math
from collections.abc import Collection
from dataclasses import dataclass

DIRECTIONS = ("left", "right", "up", "down")

_STEP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """Pixels added on every side."""

    left: int = 0
    right: int = 0
    up: int = 0
    down: int = 0

    def grown(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height afterwards."""
        return size[0] + self.left + self.right, size[1] + self.up + self.down


def borders(size: tuple[int, int], pixels: int, directions: Collection[str]) -> Borders:
    """The borders that add `pixels` in some directions and make the whole a multiple of 64.

    What that takes on top is shared by the two sides of an axis; one that does not grow is left as it is.
    """
    left, right = _pair(size[0], pixels if "left" in directions else 0, pixels if "right" in directions else 0)
    up, down = _pair(size[1], pixels if "up" in directions else 0, pixels if "down" in directions else 0)
    return Borders(left=left, right=right, up=up, down=down)


def _pair(length: int, before: int, after: int) -> tuple[int, int]:
    if not before + after:
        return 0, 0
    added = math.ceil((length + before + after) / _STEP) * _STEP - length
    first = added * before // (before + after)
    return first, added - first
