"""Which questions to answer next: pure functions over plain values, no torch, settled in simulation.

Start-time fair queueing (Goyal, Vin and Cheng 1996, doi:10.1145/248156.248171) over lanes of equal weight: every lane
is charged the device seconds it used. The lane that used least decides what kind of batch runs next; others of that
kind fill it in the same order. So a picture with cheap steps is not held up behind one with dear steps, whoever came
first. A newcomer starts at the level of the lane that was served last (the virtual time, which never goes back), so
that no stream of newcomers starves a lane.

Where lanes need different weights in the same network, the device stays with those that are in it for a while: the lane
that used least waits until it is `STICKY_S` behind.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

STICKY_S = 1.0
"""Device seconds by which a lane may fall behind before the weights are changed for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A lane's pending question. Questions of equal `key` can share a forward pass; `rows` is what this one adds to it.

    `served_s` are the device seconds charged to the lane so far, `arrival` its place in the order of arrival. `weights`
    says what must be in the network for it, None if that does not matter.
    """

    lane: int
    key: Hashable
    rows: int
    served_s: float
    arrival: int
    weights: Hashable = None


def pick(waiting: Sequence[Waiting], cap: Callable[[Hashable], int], present: Hashable = None) -> list[Waiting]:
    """The next batch: the least served question, and those of its kind that fit under `cap(key)` rows.

    A question larger than the cap runs alone. Empty only if nothing waits. `present` are the weights in the network.
    """
    order = sorted(waiting, key=lambda w: (w.served_s, w.arrival))
    ready = next((w for w in order if w.weights in (None, present)), None)
    if ready is not None and ready.served_s - order[0].served_s < STICKY_S:
        order.remove(ready)
        order.insert(0, ready)
    batch: list[Waiting] = []
    room = 0
    for candidate in order:
        if not batch:
            batch.append(candidate)
            room = cap(candidate.key) - candidate.rows
        elif candidate.key == batch[0].key and candidate.rows <= room:
            batch.append(candidate)
            room -= candidate.rows
    return batch
