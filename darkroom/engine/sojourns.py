"""In which order lanes are served: who would be done first if all shared the device alike, goes first.

The fair sojourn protocol: Friedman and Henderson 2003, doi:10.1145/781027.781056. Beside the device a second one is
imagined that serves everybody at once, each at an equal share. The lane that would leave it next is served here, alone
or with others that can share its forward pass. So quick pictures are not held up by long ones, long ones are not
stretched by each other, and nobody is done later than with equal shares.

How long a lane takes is a guess. One that takes longer goes on as a newcomer with what it is thought then to have left,
and with half as much again as it had at least.

Clients that bring a quick picture as soon as the last one is done would still put a long one off for very long. So a
quarter of the device is the oldest lane's, whatever it is.

Pure bookkeeping of seconds; no clock of its own.
"""

import heapq
import math
from collections.abc import Callable, Container

AGAIN = 0.5
"""How much longer a lane that takes longer than was thought is thought to take, by what it has taken."""


OLDEST_SHARE = 0.25
"""The share of the device that the lane has at least which came first of those that are there."""


class Sojourns:
    """When lanes would leave the imagined device, on its own time, by the numbers that they are known by."""

    __slots__ = ("_ends", "_last_s", "_left_s", "_now_s", "_oldest", "_owed_s", "_present")

    def __init__(self) -> None:
        self._now_s = 0.0
        """The imagined device's time: the seconds that it has given to each lane that was there throughout."""
        self._present: list[float] = []
        self._oldest: int | None = None
        self._owed_s = self._last_s = 0.0
        """What the oldest lane still has to get of its share, and what the last batch took."""
        self._ends: dict[int, float] = {}
        self._left_s: dict[int, tuple[float, float]] = {}
        """By lane, what it was thought to take, and what is left of it; negative if it took longer."""

    def enter(self, lane: int, expected_s: float) -> None:
        """A lane comes that is thought to take so many seconds of the device."""
        self._expect(lane, expected_s)
        self._left_s[lane] = expected_s, expected_s

    def serve(self, lane: int, seconds: float) -> None:
        """A lane had so many seconds of the device, its share of a batch."""
        expected_s, left_s = self._left_s[lane]
        self._left_s[lane] = expected_s, left_s - seconds
        if lane == self._oldest:
            self._owed_s = max(0.0, self._owed_s - seconds)

    def work(self, seconds: float) -> None:
        """The device worked so long, and so did the imagined one."""
        self._owed_s, self._last_s = self._owed_s + OLDEST_SHARE * seconds, seconds
        while self._present and seconds > 0:
            until_next_s = (self._present[0] - self._now_s) * len(self._present)
            if until_next_s > seconds:
                self._now_s += seconds / len(self._present)
                return
            self._now_s = heapq.heappop(self._present)
            seconds -= until_next_s

    def keep(self, lanes: Container[int], thought_s: Callable[[int], float] = lambda _: 0.0) -> None:
        """These lanes want more, thought to be so many seconds. The others are gone; the imagined device keeps them for
        as long as it would have.
        """
        for lane, (expected_s, left_s) in list(self._left_s.items()):
            if lane not in lanes:
                del self._ends[lane], self._left_s[lane]
            elif left_s <= 0:
                more_s = max(thought_s(lane), AGAIN * (expected_s - left_s))
                self._left_s[lane] = expected_s - left_s + more_s, more_s
                self._expect(lane, more_s)
        oldest = min(self._ends, default=None)
        if oldest != self._oldest:
            self._oldest, self._owed_s = oldest, 0.0

    def end_s(self, lane: int) -> float:
        """When a lane would leave: the smaller, the sooner it is served. The oldest is first where its share is due."""
        due = lane == self._oldest and self._owed_s >= self._last_s
        return -math.inf if due else self._ends[lane]

    def _expect(self, lane: int, seconds: float) -> None:
        self._ends[lane] = self._now_s + seconds
        heapq.heappush(self._present, self._ends[lane])
