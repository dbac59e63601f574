"""Whose turn it is: pure functions over plain values, for the book of jobs and for the engine's queue alike.

Jobs of one party and one priority wait in a line, first come, first served. Of the lines, the one with the highest
priority goes first; among equals the party that has least at work, then the one that was served longest ago: whoever
brings many jobs keeps nobody waiting who brings one.

Nobody waits for ever behind higher priorities: a line of which nothing was begun for `PATIENCE_S` goes first for one
job, whatever its priority, and of several such lines the one that has waited longest. One turn is all it gets until it
has waited so long again, so that neither many jobs nor long waiting makes a party more than its turns.

Whoever has something at work leaves a part of the room to those who have nothing: they find a place at once, and not
only when a long job has ended. A party without a name is everybody, and has all the room.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 60.0
"""Seconds after which a line gets a turn, whatever its priority."""

_FREE_SHARE: Final = 4
"""The fourth part of a room is left free."""

_SMALL_ROOM: Final = 2
"""A room for fewer is too small to leave any of it free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Jobs of one party and one priority that wait. `since` is when the first of them came; `begun_at` when one of
    this line was begun last, and `served_at` one of any line of the party; `at_work` is what the party has at work.
    Times are seconds on one clock.
    """

    party: str
    priority: int
    since: float
    begun_at: float = -math.inf
    served_at: float = -math.inf
    at_work: int = 0

    @property
    def idle_since(self) -> float:
        """Since when it has waited without a turn."""
        return max(self.since, self.begun_at)


def in_turn(lines: Iterable[Line], now: float) -> list[Line]:
    """Lines in the order in which their first jobs are to be begun."""
    return sorted(lines, key=lambda line: _place(line, now))


def _place(line: Line, now: float) -> tuple[object, ...]:
    overdue = now - line.idle_since >= PATIENCE_S
    fair = (-line.priority, line.at_work, line.served_at, line.since, line.party)
    return (0, line.idle_since, *fair) if overdue else (1, 0.0, *fair)


def kept_free(room: int) -> int:
    """How many places of a room those leave free who have one already."""
    return 0 if room < _SMALL_ROOM else max(1, room // _FREE_SHARE)


def has_place(party: str, taken: Mapping[str, int], room: int, size: int = 1) -> bool:
    """Whether a party finds `size` places, where parties have taken so many of the room."""
    free = room - sum(taken.values())
    return free - size >= (kept_free(room) if party and taken.get(party) else 0)
