"""The work that is measured: the same pictures asked of Darkroom by many clients, and of a pipeline one by one."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench import baseline
from tests.e2e.serving import Json, Server

PROMPTS = ("puppy dog", "a red apple", "a cat and a red apple", "a blue dog", "rocket", "snowman", "tree", "pizza")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A picture to be made. `size` is its side in pixels."""

    prompt: str
    seed: int
    steps: int
    size: int
    cfg_scale: float = 7.0

    def as_request(self) -> Json:
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


def orders(number: int, steps: int, size: int) -> list[Order]:
    """Pictures of different prompts and seeds."""
    return [Order(prompt=PROMPTS[n % len(PROMPTS)], seed=n, steps=steps, size=size) for n in range(number)]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def solo(server: Server, order: Order) -> None:
    """One picture over HTTP."""
    answer = server.post("/sdapi/v1/txt2img", order.as_request())
    if len(answer["images"]) != 1:
        raise RuntimeError("no picture came")


def crowd(server: Server, wanted: Sequence[Order], clients: int) -> float:
    """Pictures per second of Darkroom, asked by that many clients at once, each for one picture after another."""
    with ThreadPoolExecutor(clients) as pool:
        return len(wanted) / seconds(lambda: list(pool.map(lambda order: solo(server, order), wanted)))


def one_by_one(pipe: baseline.Pipeline, wanted: Sequence[Order]) -> float:
    """Pictures per second of a plain pipeline."""

    def work() -> None:
        for order in wanted:
            baseline.draw(pipe, order.prompt, order.seed, steps=order.steps, size=order.size, cfg_scale=order.cfg_scale)

    return len(wanted) / seconds(work)
