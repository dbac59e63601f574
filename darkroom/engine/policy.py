"""Which questions to answer next: pure functions over plain values, no torch, settled in simulation.

Lanes have levels (see `sojourns` and `sharing`). The lane with the lowest one decides what kind of batch runs next;
others of that kind fill it in the same order. Between two batches everything is open again: a long picture is put off
at its next step for a quick one that came later.

While a batch of evaluations has room, lanes that would share it but are only beginning have their texts encoded first:
else a picture that came a moment later would wait until those before it are done, and batches would shrink to one.

Where a question needs other weights than are in place, so much work is done first that changes of one size take no
more than a fifth of the device's time. Adapters, which are merged in a moment, change often; a checkpoint that must be
read from disk is waited for, but for no more work than `tenure_s` says, and the change that the lowest lane needs is
the next one of its size.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

PATIENCE = 4.0
"""Seconds of work between two changes of weights, for each second that the change takes."""

LONGEST_TENURE_S = 30.0
"""However long a change takes, whoever needs it waits for no more work of others than this."""

LINGERING = 0.1
"""The share of a change's seconds for which the device stands still first, in case somebody comes for whom everything
is in place: a client sends its next request a moment after it got its picture."""

LONGEST_LINGERING_S = 1.0

ALIKE = 0.5
"""Changes count as of one size down to this share of each other's seconds."""

Stage = Literal["beginning", "evaluating", "other"]
"""What a lane waits for: what comes before its next evaluation, that evaluation, or something else."""

WorkedSince = Callable[[float], float]
"""Device seconds of work since weights were last changed in about so many seconds or in more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A lane's pending question. Questions of equal `key` can share a forward pass; `rows` is what this one adds to it.

    Those with a low `level` go first, and among equals those that came first, by `arrival`.
    `change_s` is how long it would take now to have in place what the question needs, 0 if it is. Lanes of equal
    `company` can share evaluations.
    """

    lane: int
    key: Hashable
    rows: int
    level: float
    arrival: int
    change_s: float = 0.0
    stage: Stage = "other"
    company: Hashable = None


def tenure_s(change_s: float) -> float:
    """Seconds of work that come before a change of weights which takes `change_s`."""
    return min(PATIENCE * change_s, LONGEST_TENURE_S)


def pick(
    waiting: Sequence[Waiting], cap: Callable[[Hashable], int], worked_since: WorkedSince = lambda _: math.inf
) -> list[Waiting]:
    """The next batch: the lowest question that is due, and those of its kind that fit under `cap(key)` rows.

    If those are evaluations and there is room for more, what lanes need before they can join them is done instead.
    Together they have a number of rows that processors' kernels are likely to be there for (`is_usual`), if leaving out
    the last ones makes it one. A question larger than the cap runs alone. Empty only if nothing waits.
    """
    order = _in_turn(waiting)
    first = _find_due(order, worked_since) or _soonest(order)
    if first is None:
        return []
    batch, room = _fill(first, order, cap)
    newcomer = _find_newcomer(first, order) if room > 0 else None
    if newcomer is not None:
        batch, _ = _fill(newcomer, order, cap)
    while len(batch) > 1 and not is_usual(sum(w.rows for w in batch)):
        batch.pop()
    return batch


def _find_newcomer(first: Waiting, order: Sequence[Waiting]) -> Waiting | None:
    """The first lane that would share the evaluation of another one, but has not come to its own yet."""
    if first.stage != "evaluating" or first.change_s > 0:
        return None
    return next((w for w in order if w.stage == "beginning" and w.company == first.company and w.change_s == 0), None)


def _fill(first: Waiting, order: Sequence[Waiting], cap: Callable[[Hashable], int]) -> tuple[list[Waiting], int]:
    """A batch of a question and others of its kind, and how many more rows it could have."""
    batch, room = [first], cap(first.key) - first.rows
    for candidate in order:
        if candidate is not first and candidate.key == first.key and candidate.rows <= room:
            batch.append(candidate)
            room -= candidate.rows
    return batch, room


def is_usual(rows: int) -> bool:
    """Whether it is a power of two, or three times one.

    Libraries make kernels for each number of rows, and keep only so many: whatever comes is answered with few of them,
    and what is left out is the first of the next batch.
    """
    rest = rows // 3 if rows % 3 == 0 else rows
    return rest.bit_count() == 1


def linger_s(waiting: Sequence[Waiting], worked_since: WorkedSince, idle_s: float) -> float:
    """For how many seconds the device should still wait for company before it changes weights that are not due.

    `idle_s` is how long it has been doing nothing.
    """
    if not waiting or _find_due(_in_turn(waiting), worked_since):
        return 0.0
    patience_s = min(LINGERING * min(w.change_s for w in waiting), LONGEST_LINGERING_S)
    return max(0.0, patience_s - idle_s)


def _in_turn(waiting: Sequence[Waiting]) -> list[Waiting]:
    return sorted(waiting, key=lambda w: (w.level, w.arrival))


def _find_due(order: Sequence[Waiting], worked_since: WorkedSince) -> Waiting | None:
    """The first question for which everything is in place, or for which it is time to put it there.

    No change is made before one that is not due yet but stands earlier in the order, if that one would then have to
    wait anew.
    """
    shorter_than_s = math.inf
    for w in order:
        if w.change_s == 0 or (w.change_s < shorter_than_s and worked_since(w.change_s) >= tenure_s(w.change_s)):
            return w
        shorter_than_s = min(shorter_than_s, ALIKE * w.change_s)
    return None


def _soonest(order: Sequence[Waiting]) -> Waiting | None:
    """What to do where nothing is due: the first question, unless another needs a so much shorter change that the first
    one loses nothing by it.
    """
    found: Waiting | None = None
    for w in order:
        if found is None or w.change_s < ALIKE * found.change_s:
            found = w
    return found


class Changes:
    """Remembers how much work was done since weights were changed: the latest change of every size counts."""

    __slots__ = ("_made", "_worked_s")

    def __init__(self) -> None:
        self._worked_s = 0.0
        self._made: list[tuple[float, float]] = []
        """How long a change took and how much had been worked before it; ever shorter ones, in order."""

    def work(self, seconds: float) -> None:
        """Note that the device worked."""
        self._worked_s += seconds

    def change(self, seconds: float) -> None:
        """Note that weights were changed."""
        self._made = [made for made in self._made if made[0] > seconds]
        self._made.append((seconds, self._worked_s))

    def worked_since(self, change_s: float) -> float:
        """Work since the last change that was about as long as this or longer; infinite if there was none."""
        return next((self._worked_s - at for took, at in reversed(self._made) if took >= ALIKE * change_s), math.inf)
