"""What is held in memory under a budget of bytes, the least recently used dropped first.

Knows sizes and times, and nothing of what it holds.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol


class Sized(Protocol):
    """What can be held. Its size may change while it is: it is asked each time."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory held now."""


@dataclass(slots=True)
class _Resident:
    thing: Any
    state: Hashable
    used_at_s: float
    turn: int


class Residents:
    """Things by key. Those asked for since `begin_turn` are in use and stay, whatever the budget says.

    `clock` tells seconds; `released` is called after something was dropped.
    """

    __slots__ = ("_budget_bytes", "_clock", "_held", "_released", "_turn")

    def __init__(
        self,
        budget_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._released = released
        self._held: OrderedDict[Hashable, _Resident] = OrderedDict()
        self._turn = 0

    def begin_turn(self) -> None:
        """From now on nothing is in use."""
        self._turn += 1

    def holds(self, key: Hashable) -> bool:
        """Whether there is something under the key, in whatever state."""
        return key in self._held

    def find(self, key: Hashable, state: Hashable | None = None) -> Any:
        """What is held under the key in this state (None: in any), which is in use from now on; else None."""
        found = self._held.get(key)
        if found is None or state not in (None, found.state):
            return None
        found.used_at_s, found.turn = self._clock(), self._turn
        self._held.move_to_end(key)
        return found.thing

    def add(self, key: Hashable, state: Hashable, thing: Sized) -> None:
        """Hold something in place of what was under the key. It is in use; others go if they do not fit beside it."""
        self._held[key] = _Resident(thing, state, self._clock(), self._turn)
        self._held.move_to_end(key)
        self.make_room(0)

    def drop(self, key: Hashable) -> None:
        """Let go of what is under the key, if anything is."""
        if self._held.pop(key, None) is not None:
            self._released()

    def make_room(self, coming_bytes: int) -> None:
        """Drop what is least recently used and not in use, until so many bytes more are within the budget."""
        excess = self.nbytes + coming_bytes - self._budget_bytes
        for key, resident in list(self._held.items()):
            if excess <= 0:
                return
            if resident.turn != self._turn:
                excess -= resident.thing.nbytes
                self.drop(key)

    def drop_unused(self, for_s: float) -> float | None:
        """Drop what nobody has asked for in so many seconds. In how many the next may go; None if nothing is held."""
        limit_s = self._clock() - for_s
        for key, resident in list(self._held.items()):
            if resident.used_at_s <= limit_s:
                self.drop(key)
        return min((resident.used_at_s - limit_s for resident in self._held.values()), default=None)

    def clear(self) -> None:
        """Drop everything."""
        if self._held:
            self._held.clear()
            self._released()

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return sum(resident.thing.nbytes for resident in self._held.values())
