"""How many rows a batch should have: up to the knee of the throughput curve, not up to memory.

Pure bookkeeping of measured batch times; no torch, no clock of its own.
"""

import math
from collections import deque
from collections.abc import Hashable

WORTHWHILE = 0.97
"""A larger batch must bring the time per row down at least to this share of what it was, or it only adds latency."""

TRIALS = 3
"""Timings of a size before it is judged: the first ones pay for kernels being chosen."""

REMEMBERED = 8
REVISIT_AFTER = 200


class BatchCosts:
    """Learns, per kind of batch, the time per row at each power of two of rows, and caps batches at the knee.

    Of the last few timings the fastest counts: other programs on the machine can only slow a batch down. Sizes above
    the cap are forgotten every now and then and tried again, because an unlucky measurement must not cap throughput for
    ever.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._fits: dict[Hashable, int] = {}
        self._timings: dict[Hashable, dict[int, deque[float]]] = {}
        self._observed: dict[Hashable, int] = {}

    def observe(self, key: Hashable, rows: int, seconds: float) -> None:
        """Note that a batch of `rows` rows took `seconds`."""
        sizes = self._timings.setdefault(key, {})
        sizes.setdefault(_nearest_power_of_two(rows), deque(maxlen=REMEMBERED)).append(seconds / rows)
        self._observed[key] = self._observed.get(key, 0) + 1
        if self._observed[key] % REVISIT_AFTER == 0:
            cap = self.cap(key)
            self._timings[key] = {size: timings for size, timings in sizes.items() if size <= cap}

    def cap(self, key: Hashable) -> int:
        """The largest number of rows worth putting into one batch of this kind: the knee, or one doubling beyond what
        is known.
        """
        limit = self._fits.get(key, self._max_rows)
        known = 1
        best: float | None = None
        for size, timings in sorted(self._timings.get(key, {}).items()):
            if len(timings) < TRIALS:
                continue
            if best is not None and min(timings) > best * WORTHWHILE:
                return min(limit, size // 2)
            known, best = size, min(timings)
        return min(limit, known * 2)

    def shrink(self, key: Hashable, rows: int) -> None:
        """A batch of `rows` rows did not fit the device: never try that many of this kind again."""
        self._fits[key] = max(1, rows // 2)


def _nearest_power_of_two(rows: int) -> int:
    return 1 << round(math.log2(rows))
