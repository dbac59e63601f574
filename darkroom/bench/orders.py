"""The work that is measured: pictures to be made, and when they are asked for. Plain values and arithmetic."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PROMPTS = ("puppy dog", "a red apple", "a cat and a red apple", "a blue dog", "rocket", "snowman", "tree", "pizza")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A picture to be made. `size` is its side in pixels; `at_s` when it is asked for, counted from the first one."""

    prompt: str
    seed: int
    steps: int
    size: int
    cfg_scale: float = 7.0
    at_s: float = 0.0

    @property
    def work(self) -> float:
        """How much there is to do, in steps of a picture of one pixel."""
        return float(self.steps * self.size * self.size)

    def as_request(self) -> dict[str, Any]:
        """The body of a txt2img request."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "steps": self.steps,
            "width": self.size,
            "height": self.size,
            "cfg_scale": self.cfg_scale,
            "sampler_name": "Euler",
        }

    def as_dict(self) -> dict[str, Any]:
        """What another process makes the same order of."""
        return asdict(self)


def orders(number: int, steps: int, size: int) -> list[Order]:
    """Pictures of different prompts and seeds."""
    return [Order(prompt=PROMPTS[n % len(PROMPTS)], seed=n, steps=steps, size=size) for n in range(number)]


def mixed(number: int, steps: Sequence[int], sizes: Sequence[int], seed: int = 1) -> list[Order]:
    """Pictures of any of these steps and sizes, drawn at random and the same every time."""
    chance = random.Random(seed)
    return [
        Order(prompt=PROMPTS[n % len(PROMPTS)], seed=n, steps=chance.choice(steps), size=chance.choice(sizes))
        for n in range(number)
    ]


def arriving(wanted: Sequence[Order], rate: float, seed: int = 2) -> list[Order]:
    """The same pictures, asked for at random: a Poisson process of so many per second."""
    chance, at_s = random.Random(seed), 0.0
    found = []
    for order in wanted:
        found.append(Order(**{**order.as_dict(), "at_s": at_s}))
        at_s += chance.expovariate(rate)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100).__int__() - 1)]
