"""A device in simulation: lanes that come at their time, costs of batches as they were recorded, the engine's own order
and its own caps. No threads, no torch, no clock.
"""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from darkroom.engine.costs import BatchCosts, Kind
from darkroom.engine.policy import Waiting, pick
from darkroom.engine.sojourns import Sojourns

Costs = Callable[[int, int], float]
"""Seconds of a batch, by latent pixels and rows."""


@dataclass
class Simulated:
    """A lane of `steps` questions of two rows each, and one before them for its text. `thought` is by how much its
    length is misjudged.
    """

    steps: int
    pixels: int = 256
    arrives_s: float = 0.0
    thought: float = 1.0
    is_encoded: bool = False
    done: int = 0
    ended_s: float = 0.0

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.arrives_s


@dataclass
class Engine:
    """Serves lanes as the engine does: the order of `sojourns`, batches up to the knee. A text takes `text_s`."""

    costs: Costs
    max_rows: int = 64
    text_s: float = 0.0
    knees: BatchCosts = field(init=False)
    order: Sojourns = field(default_factory=Sojourns)

    def __post_init__(self) -> None:
        self.knees = BatchCosts(self.max_rows)

    def come(self, number: int, lane: Simulated) -> None:
        self.order.enter(number, lane.thought * lane.steps * self.costs(lane.pixels, 2))

    def serve(self, lanes: Mapping[int, Simulated]) -> tuple[list[int], float]:
        """The lanes that are served now, and the seconds that it takes."""
        kinds: dict[Hashable, Kind] = {lane.pixels: Kind("denoise", "model", lane.pixels) for lane in lanes.values()}
        kinds["text"] = Kind("text", "model", 0)
        self.order.keep(lanes)
        waiting = [
            Waiting(
                lane=number,
                key=lane.pixels if lane.is_encoded else "text",
                rows=2,
                level=self.order.end_s(number),
                arrival=number,
                stage="evaluating" if lane.is_encoded else "beginning",
                company=lane.pixels,
            )
            for number, lane in lanes.items()
        ]
        batch = [one.lane for one in pick(waiting, lambda key: self.knees.cap(kinds[key]))]
        if not lanes[batch[0]].is_encoded:
            return self._encode([lanes[number] for number in batch])
        pixels, rows = lanes[batch[0]].pixels, 2 * len(batch)
        seconds = self.costs(pixels, rows)
        self.knees.observe(kinds[pixels], rows, seconds)
        self.order.work(seconds)
        for number in batch:
            self.order.serve(number, seconds / len(batch))
        return batch, seconds

    def _encode(self, batch: list[Simulated]) -> tuple[list[int], float]:
        for lane in batch:
            lane.is_encoded = True
        self.order.work(self.text_s * len(batch))
        return [], self.text_s * len(batch)


@dataclass
class InOrder:
    """First come, first served, one at a time."""

    costs: Costs

    def come(self, number: int, lane: Simulated) -> None:
        pass

    def serve(self, lanes: Mapping[int, Simulated]) -> tuple[list[int], float]:
        first = min(lanes)
        return [first], self.costs(lanes[first].pixels, 2)


def simulate(lanes: Sequence[Simulated], device: Engine | InOrder) -> None:
    """Run the lanes, which are in order of arrival, to their end."""
    now, come = 0.0, 0
    live: dict[int, Simulated] = {}
    while come < len(lanes) or live:
        while come < len(lanes) and (lanes[come].arrives_s <= now or not live):
            now = max(now, lanes[come].arrives_s)
            live[come] = lanes[come]
            device.come(come, lanes[come])
            come += 1
        batch, seconds = device.serve(live)
        now += seconds
        for number in batch:
            live[number].done += 1
            if live[number].done == live[number].steps:
                live.pop(number).ended_s = now


def arrivals(number: int, steps: Sequence[int], pixels: Sequence[int], rate: float, seed: int) -> list[Simulated]:
    """Lanes of any of these steps and sizes that come at random, so many per second."""
    chance, now = random.Random(seed), 0.0
    found = []
    for _ in range(number):
        now += chance.expovariate(rate)
        found.append(Simulated(chance.choice(steps), chance.choice(pixels), now))
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
