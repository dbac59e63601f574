"""`python -m darkroom.bench.worker JSON`: a subject's own process. Reads a line of JSON per question, writes one back.

Whatever libraries print goes to standard error, so that nothing comes between the answers.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from darkroom.bench.orders import Order
from darkroom.bench.subjects import NotHereError, run_all
from darkroom.engine.allocator import keep_freed_memory

Draw = Callable[[Order], object]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What draws, and whether it is becoming quicker by itself."""

    draw: Draw
    is_compiling: Callable[[], bool] = lambda: False


Make = Callable[[dict[str, Any]], Drawing]

QUIET_ROUNDS = 10
"""After so many without a compilation there comes none: more than a shape is asked for before it is compiled."""


def _ours(told: dict[str, Any]) -> Drawing:
    keep_freed_memory()  # as the command does
    from darkroom.bench.engine import Engine

    engine = Engine(told)
    return Drawing(engine.draw, engine.is_compiling)


def _diffusers(told: dict[str, Any]) -> Drawing:
    from darkroom.bench.diffusers_pipeline import pipeline

    return Drawing(pipeline(told))


def _stable_diffusion_cpp(told: dict[str, Any]) -> Drawing:
    from darkroom.bench.stable_diffusion_cpp import model

    return Drawing(model(told))


KINDS: Mapping[str, Make] = MappingProxyType(
    {"darkroom": _ours, "diffusers": _diffusers, "stable-diffusion.cpp": _stable_diffusion_cpp}
)


def main() -> None:
    """Make the subject, then answer until there is nothing more to read."""
    answers = _take_stdout()
    told = json.loads(sys.argv[1])
    try:
        drawing = KINDS[told["kind"]](told)
    except (NotHereError, ImportError) as error:
        _say(answers, {"missing": str(error)})
        return
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, {"seconds": _answer(drawing, told, json.loads(line))})


def _answer(drawing: Drawing, told: dict[str, Any], question: dict[str, Any]) -> list[float]:
    """Make the pictures that are asked for; with a profile nothing is timed."""
    draw, wanted = drawing.draw, [Order(**one) for one in question["orders"]]
    if question.get("settle"):
        settle(lambda: run_all(draw, wanted, question["clients"]), drawing.is_compiling)
        return []
    if question.get("profile"):
        _profile(lambda: run_all(draw, wanted, question["clients"]), Path(question["profile"]), told["device"])
        return []
    return _run(draw, wanted, question["clients"], one_at_a_time=told["kind"] != "darkroom")


def settle(work: Callable[[], object], is_compiling: Callable[[], bool]) -> None:
    """Work until nothing more is compiled for such work."""
    quiet = 0
    while quiet < QUIET_ROUNDS:
        work()
        quiet += 1
        while is_compiling():
            quiet = 0
            time.sleep(0.05)


def _run(draw: Draw, wanted: Sequence[Order], clients: int, *, one_at_a_time: bool) -> list[float]:
    """Peers serve whoever came first, one at a time."""
    if not one_at_a_time:
        return run_all(draw, wanted, clients)
    begin = time.perf_counter()
    found: list[float] = []
    for order in wanted:
        asked = time.perf_counter() if clients else begin + order.at_s
        time.sleep(max(0.0, asked - time.perf_counter()))
        draw(order)
        found.append(time.perf_counter() - asked)
    return found


def _profile(work: Callable[[], object], path: Path, device: str) -> None:
    """Write where the time of some work goes, as torch's profiler sees it."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)  # noqa: SLF001  the only way
    with profile(activities=activities, experimental_config=every_thread) as found:
        work()
    path.write_text(found.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=40))


def _take_stdout() -> TextIO:
    """The real standard output; what others write to it goes to standard error from now on."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
