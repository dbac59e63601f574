"""What batches cost: how many rows one should have, up to the knee of the throughput curve and not up to memory, and
how long work is likely to take.

Pure bookkeeping of measured batch times; no torch, no clock of its own.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from darkroom.jobs.effort import Effort

WORTHWHILE = 0.97
"""A larger batch must bring the time per row down at least to this share of what it was, or it only adds latency."""

TRIALS = 3
"""Timings of a size before it is judged: the first ones pay for kernels being chosen."""

REMEMBERED = 8
REVISIT_AFTER = 200

MOST_KINDS = 512
"""Kinds that are remembered, those that were seen last."""

PIXEL_S = 1e-4
"""What a row is taken to cost per latent pixel before anything was measured, seconds: about Stable Diffusion 1 on two
cores.
"""

Table = Mapping[int, float]
"""Seconds per row by rows of a batch."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Batches that cost alike: what is done (`name`), with which checkpoint, on latents of so many pixels (0: on
    something else).
    """

    name: str
    checkpoint: str
    pixels: int


class BatchCosts:
    """Learns, per kind of batch, the time per row at each power of two of rows, and caps batches at the knee.

    Of the last few timings the fastest counts: other programs on the machine can only slow a batch down. Sizes above
    the cap are forgotten every now and then and tried again, because an unlucky measurement must not cap throughput for
    ever. `known` are tables from before, `keep` is told the present ones by `save`.
    """

    def __init__(
        self,
        max_rows: int,
        known: Mapping[Kind, Table] | None = None,
        keep: Callable[[Mapping[Kind, Table]], None] = lambda _: None,
    ) -> None:
        self._max_rows = max_rows
        self._keep = keep
        self._fits: dict[Kind, int] = {}
        self._timings: dict[Kind, dict[int, deque[float]]] = {}
        self._observed: dict[Kind, int] = {}
        for kind, table in (known or {}).items():
            self._timings[kind] = {rows: deque([row_s] * TRIALS, REMEMBERED) for rows, row_s in table.items()}

    def observe(self, kind: Kind, rows: int, seconds: float) -> None:
        """Note that a batch of `rows` rows took `seconds`."""
        sizes = self._timings.pop(kind, {})
        self._timings[kind] = sizes  # the last of them
        if len(self._timings) > MOST_KINDS:
            del self._timings[next(iter(self._timings))]
        sizes.setdefault(_nearest_power_of_two(rows), deque(maxlen=REMEMBERED)).append(seconds / rows)
        self._observed[kind] = self._observed.get(kind, 0) + 1
        if self._observed[kind] % REVISIT_AFTER == 0:
            cap = self.cap(kind)
            self._timings[kind] = {size: timings for size, timings in sizes.items() if size <= cap}

    def cap(self, kind: Kind) -> int:
        """The largest number of rows worth putting into one batch of this kind: the knee, or one doubling beyond what
        is known.
        """
        limit = self._fits.get(kind, self._max_rows)
        known = 1
        best: float | None = None
        for size, timings in sorted(self._timings.get(kind, {}).items()):
            if len(timings) < TRIALS:
                continue
            if best is not None and min(timings) > best * WORTHWHILE:
                return min(limit, size // 2)
            known, best = size, min(timings)
        return min(limit, known * 2)

    def shrink(self, kind: Kind, rows: int) -> None:
        """A batch of `rows` rows did not fit the device: never try that many of this kind again."""
        self._fits[kind] = max(1, rows // 2)

    def expected_s(self, efforts: Iterable[Effort]) -> float:
        """How long work is likely to take, alone: by what was measured of its kind, or of the nearest ones."""
        return sum(one.inputs * one.pixels * self._pixel_s(one) for one in efforts)

    def save(self) -> None:
        """Have what was learnt kept, of sizes that were tried often enough."""
        found = {
            kind: {size: min(timings) for size, timings in sorted(sizes.items()) if len(timings) >= TRIALS}
            for kind, sizes in self._timings.items()
        }
        self._keep({kind: table for kind, table in found.items() if table})

    def _pixel_s(self, effort: Effort) -> float:
        """Seconds per row and pixel: of the same checkpoint at the next size that is known, else of any."""
        known = {
            kind: min(min(timings) for timings in sizes.values()) / kind.pixels
            for kind, sizes in self._timings.items()
            if kind.name == "denoise" and kind.pixels
        }
        same = {kind: pixel_s for kind, pixel_s in known.items() if kind.checkpoint == effort.checkpoint}
        if same:
            return same[min(same, key=lambda kind: abs(kind.pixels - effort.pixels))]
        return sum(known.values()) / len(known) if known else PIXEL_S


def _nearest_power_of_two(rows: int) -> int:
    return 1 << round(math.log2(rows))
