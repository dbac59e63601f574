"""What is measured, one function per scenario. Sides that are compared take turns in the same run, and a ratio is taken
round by round.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copy
from types import MappingProxyType

from safetensors import safe_open
from safetensors.torch import save_file

import darkroom
from darkroom.bench import switching
from darkroom.bench.machine import resident_bytes
from darkroom.bench.orders import Order, arriving, mixed, orders, percentile
from darkroom.bench.rows import Row, ratios
from darkroom.bench.subjects import Conditions, Model, NotHereError, Served, Subject, Worker
from darkroom.bench.weights import random_adapter, write
from darkroom.engine.local import KNEES

MINI = Path(darkroom.__file__).parent / "mini" / "darkroom-mini.safetensors"

EVALUATION_TFLOP: Mapping[str, float] = MappingProxyType({"sd15": 0.803, "sdxl": 6.76})
"""What one network input costs at the model's own size, 10^12 operations."""

DECODE_TFLOP: Mapping[str, float] = MappingProxyType({"sd15": 2.51, "sdxl": 10.5})
NATIVE: Mapping[str, int] = MappingProxyType({"sd15": 512, "sdxl": 1024})

COMPILED, FLOAT32 = "--compile", "--precision fp32"
"""What sides are called by the options that they have."""

SHORT, LONG = 4, 50
"""Steps of quick and of thorough requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of one model is measured, and beside whom; those in `serial` are saturated as well."""

    size: int
    steps: int
    rounds: int
    pictures: int
    peers: tuple[str, ...]
    serial: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run of the benchmark was asked for. `profiles` is where torch's profiles go, if they are wanted."""

    conditions: Conditions
    plans: Mapping[str, Plan]
    peers: bool
    compiled: bool
    quick: bool
    matmul_gflops: float
    models: Path
    profiles: Path | None = None

    def model(self, name: str) -> Model:
        """A checkpoint; the large ones are written when they are first wanted."""
        if name == "mini":
            return Model(name=name, path=MINI)
        path = self.models / f"{name}.safetensors"
        if not path.exists():
            tell(f"writing {path}")
            self.models.mkdir(parents=True, exist_ok=True)
            partial_file = path.with_suffix(".part")
            write(name, partial_file)
            partial_file.rename(path)
        return Model(name=name, path=path)

    def engine(self, name: str, **options: object) -> Worker:
        """Darkroom's engine."""
        return Worker("darkroom", self.model(name), self.conditions, **options)

    def compiling(self, name: str) -> dict[str, Callable[[], Subject]]:
        """Darkroom's engine with compiled networks, if that is wanted. On a processor these are in float32 alone; then
        the same without stands beside it.
        """
        if not self.compiled:
            return {}
        if self.conditions.device == "cuda":
            return {f"darkroom {COMPILED}": partial(self.engine, name, compile=True)}
        plain = f"darkroom {FLOAT32}"
        return {
            plain: partial(self.engine, name, precision="fp32"),
            f"{plain} {COMPILED}": partial(self.engine, name, precision="fp32", compile=True),
        }

    def peer(self, kind: str, name: str) -> Worker:
        """What others use. Raises NotHereError."""
        if not self.peers:
            raise NotHereError("not asked for")
        if kind == "stable-diffusion.cpp":
            if self.conditions.device != "cpu":
                raise NotHereError("measured on processors alone")
            return Worker(kind, self.model(name), self.conditions)
        _, dtype, *compiled = kind.split()
        return Worker("diffusers", self.model(name), self.conditions, dtype=dtype, compile=bool(compiled))

    def profile(self, worker: Worker, label: str, wanted: Sequence[Order], clients: int) -> None:
        """Write a profile if that is wanted."""
        if self.profiles:
            path = self.profiles / f"{label.replace(' ', '-')}.txt"
            worker.ask({"orders": [one.as_dict() for one in wanted], "clients": clients, "profile": str(path)})


def tell(text: str) -> None:
    """Say what is going on."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def starting(make: Mapping[str, Callable[[], Subject]]) -> Iterator[tuple[dict[str, Subject], dict[str, str]]]:
    """All subjects that can be had, by name, and why the others cannot."""
    with ExitStack() as stack:
        here: dict[str, Subject] = {}
        missing: dict[str, str] = {}
        for name, one in make.items():
            tell(f"starting {name}")
            try:
                here[name] = one()
                stack.callback(here[name].close)
            except NotHereError as error:
                missing[name] = str(error)
        yield here, missing


def in_turn(subjects: Mapping[str, Subject], order: Order, rounds: int) -> dict[str, list[float]]:
    """The seconds that every subject took for a picture, round by round; one of a single step warms each before."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for name, subject in subjects.items():
        tell(f"warming {name}")
        subject.run([replace(order, steps=1)])
        _settle(name, subject, [order])
    for number in range(rounds):
        for name, subject in subjects.items():
            [seconds] = subject.run([order])
            tell(f"round {number + 1}: {name} {seconds:.3f} s")
            found[name].append(seconds)
    return found


def _settle(name: str, subject: Subject, wanted: Sequence[Order]) -> None:
    """Have what is compiled be compiled, before it is measured."""
    if COMPILED in name and isinstance(subject, Worker):
        tell(f"compiling {name}")
        subject.settle(wanted, len(wanted))


def _gain(work: str, found: Mapping[str, Sequence[float]], *, more_is_better: bool) -> Iterator[Row]:
    """What compiling brings: how many times as quick as the same without."""
    for side, values in found.items():
        if COMPILED in side:
            plain = found[side.replace(COMPILED, "").strip()]
            both = (values, plain) if more_is_better else (plain, values)
            yield ratios(f"{work}: {side}, times as quick as without", *both)


def start(run: Run) -> Iterator[Row]:
    """From a command to its answer."""
    command = [sys.executable, "-m", "darkroom", "--help"]
    helped = [_seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(3)]
    yield Row(name="`darkroom --help`", values=tuple(helped), unit="s")
    for command_line, flags in (("darkroom serve", ()), ("darkroom serve --no-ui", ("--no-ui",))):
        ready, first = [], []
        for _ in range(2 if run.quick else 3):
            server = Served(run.model("mini"), run.conditions, *flags)
            try:
                server.draw(orders(1, 20, 128)[0])
                first.append(time.perf_counter() - server.began)
                ready.append(server.ready_s)
            finally:
                server.close()
        yield Row(name=f"`{command_line}` to ready", values=tuple(ready), unit="s")
        yield Row(name=f"`{command_line}` to the first picture", values=tuple(first), unit="s")


def solo(run: Run) -> Iterator[Row]:
    """One picture at a time, nobody else waiting."""
    for name, plan in run.plans.items():
        order = orders(1, plan.steps, plan.size)[0]
        work = _work(name, plan)
        sides: dict[str, Callable[[], Subject]] = {"darkroom": partial(run.engine, name)}
        sides |= run.compiling(name) | {peer: partial(run.peer, peer, name) for peer in plan.peers}
        with starting(sides) as (subjects, missing):
            found = in_turn(subjects, order, plan.rounds)
            ours = subjects["darkroom"]
            assert isinstance(ours, Worker)
            run.profile(ours, f"solo {name}", [order], 1)
        for side, seconds in found.items():
            yield Row(name=f"{work}: {side}", values=tuple(seconds), unit="s")
        yield from _gain(work, found, more_is_better=False)
        for peer in plan.peers:
            goal = _GOALS.get((name, peer), {})
            if peer in found:
                yield ratios(f"{work}: {peer} ÷ darkroom", found[peer], found["darkroom"], **goal)
            else:
                yield Row(name=f"{work}: {peer} ÷ darkroom", note=missing[peer], **goal)  # type: ignore[arg-type]


_GOALS: Mapping[tuple[str, str], Mapping[str, float]] = MappingProxyType(
    {
        ("sd15", "diffusers float32"): {"at_least": 8.0},
        ("sd15", "diffusers bfloat16"): {"at_least": 1.5},
        ("sd15", "stable-diffusion.cpp"): {"at_least": 5.0},
        ("sd15", "diffusers float16"): {"at_least": 1 / 0.52},
        ("sdxl", "diffusers float16"): {"at_least": 1 / 0.69},
    }
)


def saturated(run: Run) -> Iterator[Row]:
    """As many pictures per second as there can be, beside what others make one after the other, and in exact mode."""
    for name, plan in run.plans.items():
        wanted = orders(plan.pictures, plan.steps, plan.size)
        work = _work(name, plan)
        sides: dict[str, Callable[[], Subject]] = {
            "darkroom": partial(run.engine, name),
            "darkroom --exact": partial(run.engine, name, exact=True),
        }
        serial = plan.serial
        sides |= run.compiling(name) | {peer: partial(run.peer, peer, name) for peer in serial}
        with starting(sides) as (subjects, missing):
            crowds = {side: plan.pictures if side.startswith("darkroom") else 1 for side in subjects}
            found: dict[str, list[float]] = {side: [] for side in subjects}
            for side, subject in subjects.items():
                subject.run([replace(one, steps=2) for one in wanted[: crowds[side]]], crowds[side])
                _settle(side, subject, wanted)
            for number in range(plan.rounds):
                for side, subject in subjects.items():
                    some = wanted if crowds[side] > 1 else wanted[:2]
                    rate = len(some) / _seconds(partial(subject.run, some, crowds[side]))
                    tell(f"round {number + 1}: {side} {rate:.3f} pictures/s")
                    found[side].append(rate)
            ours = subjects["darkroom"]
            assert isinstance(ours, Worker)
            run.profile(ours, f"saturated {name}", wanted, len(wanted))
        yield from _saturated_rows(run, work, found, missing, serial)
        yield from _costs(name, ours.folder)
        if name in NATIVE and plan.size == NATIVE[name]:
            tflop = 2 * plan.steps * EVALUATION_TFLOP[name] + DECODE_TFLOP[name]
            share = tuple(rate * tflop / run.matmul_gflops * 1000 for rate in found["darkroom"])
            goal = {"at_least": 0.65} if (name, run.conditions.device) == ("sdxl", "cuda") else {}
            yield Row(name=f"{work}: operations per second ÷ those of a matrix product", values=share, **goal)  # type: ignore[arg-type]


def _costs(name: str, folder: Path) -> Iterator[Row]:
    """What the engine has found batches of steps to cost, which it goes by."""
    for kind, checkpoint, pixels, table in json.loads((folder / KNEES).read_text())["costs"]:
        if kind == "denoise" and checkpoint:
            for rows, row_s in table.items():
                words = f"{name}: a network input of {pixels} latent pixels, in batches of {rows}"
                yield Row(name=words, values=(1000 * row_s,), unit="ms")


def _saturated_rows(
    run: Run, work: str, found: Mapping[str, Sequence[float]], missing: Mapping[str, str], serial: Sequence[str]
) -> Iterator[Row]:
    for side, rates in found.items():
        yield Row(name=f"{work}: {side}", values=tuple(rates), unit="pictures/s")
    yield from _gain(work, found, more_is_better=True)
    yield ratios(f"{work}: exact ÷ default", found["darkroom --exact"], found["darkroom"], at_least=0.85)
    for number, peer in enumerate(serial):
        name = f"{work}: darkroom ÷ {peer}, one at a time"
        goal = {"at_least": (5.0, 4.0)[number]} if run.conditions.device == "cuda" and "sd15" in work else {}
        if peer in found:
            yield ratios(name, found["darkroom"], found[peer], **goal)
        else:
            yield Row(name=name, note=missing[peer], **goal)  # type: ignore[arg-type]


def http(run: Run) -> Iterator[Row]:
    """What a picture takes over HTTP, PNG and base64 in it, beside what the engine takes for its pixels."""
    for name, plan in run.plans.items():
        order = orders(1, plan.steps, plan.size)[0]
        sides: dict[str, Callable[[], Subject]] = {
            "engine": partial(run.engine, name),
            "http": partial(Served, run.model(name), run.conditions, "--no-ui"),
        }
        rounds = plan.rounds * (4 if name == "mini" else 1)
        with starting(sides) as (subjects, _):
            found = in_turn(subjects, order, rounds)
        yield ratios(f"{_work(name, plan)}: HTTP ÷ engine", found["http"], found["engine"], at_most=1.02)


def poisson(run: Run) -> Iterator[Row]:
    """Requests of mixed steps and sizes that come at random, at some shares of what can be done at most."""
    name, plan = next(iter(run.plans.items()))
    steps, sizes = (4, 8, 20, 30, 50), (plan.size // 2, plan.size * 3 // 4, plan.size)
    number = 30 if run.quick else 120
    wanted = mixed(number, steps, sizes)
    with starting({"darkroom": partial(run.engine, name)}) as (subjects, _):
        ours = subjects["darkroom"]
        ours.run(wanted[: number // 3], number)
        capacity = number / _seconds(lambda: ours.run(wanted, number))
        yield Row(name=f"{name}, mixed: capacity", values=(capacity,), unit="pictures/s")
        for share in (0.5, 0.8, 0.95, 0.97):
            seconds = ours.run(arriving(wanted, share * capacity), 0)
            shown = ", ".join(f"p{part} {percentile(seconds, part):.2f} s" for part in (50, 95, 99))
            tell(f"load {share}: {shown}")
            for part in (50, 95, 99):
                words = f"{name}, mixed, load {share:.0%}: p{part} of latency"
                goal = 20.0 if (part, share) == (99, 0.97) else None
                yield Row(name=words, values=(percentile(seconds, part),), unit="s", at_most=goal)


def short(run: Run) -> Iterator[Row]:
    """Requests of few steps among such of many, at 80 % of what one at a time can do, against first come, first
    served.
    """
    name, plan = next(iter(run.plans.items()))
    number, rounds = (40, 1) if run.quick else (60, 2)
    sides: dict[str, Callable[[], Subject]] = {
        "darkroom": partial(run.engine, name),
        "first come, first served": partial(run.engine, name, max_lanes=1),
    }
    found: dict[tuple[str, int], list[float]] = {}
    with starting(sides) as (subjects, _):
        wanted = mixed(number, (SHORT, LONG), (plan.size,), seed=5)
        for subject in subjects.values():
            subject.run(wanted[:8], 8)
        queue = subjects["first come, first served"]
        serial_s = sum(queue.run([replace(wanted[0], steps=steps)])[0] for steps in (SHORT, LONG)) / 2
        for number_of_round in range(rounds):
            trace = arriving(wanted, 0.8 / serial_s, seed=7 + number_of_round)
            for side, subject in subjects.items():
                seconds = subject.run(trace, 0)
                for steps in (SHORT, LONG):
                    some = [s for s, order in zip(seconds, trace, strict=True) if order.steps == steps]
                    found.setdefault((side, steps), []).append(percentile(some, 95))
                    tell(f"{side}, {steps} steps: p95 {percentile(some, 95):.2f} s")
    for (side, steps), values in found.items():
        yield Row(name=f"{name}, {steps} steps, load 80%: p95, {side}", values=tuple(values), unit="s")
    for steps, goal in ((SHORT, 0.1), (LONG, 1.2)):
        sides_p95 = (found[side, steps] for side in ("darkroom", "first come, first served"))
        yield ratios(f"{name}, {steps} steps, load 80%: p95 ÷ first come, first served", *sides_p95, at_most=goal)


def models(run: Run) -> Iterator[Row]:
    """Changes of checkpoints and of adapters, in a process of their own, by the time to copy as many bytes."""
    for name in run.plans:
        if name != "sdxl":  # two of them and an adapter do not fit into the memory of small machines
            tell(f"changing {name}")
            yield from switching.measured_apart(run.model(name), run.conditions)


def adapters(run: Run) -> Iterator[Row]:
    """Pictures per second where two adapters take turns, beside those without any."""
    name, plan = next(iter(run.plans.items()))
    folder = run.conditions.folder / "lora"
    folder.mkdir(exist_ok=True)
    with safe_open(run.model(name).path, framework="pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  not a mapping
    for number, letter in enumerate("ab"):
        save_file(random_adapter(shapes, 16, number), folder / f"bench-{letter}.safetensors")
    plain = orders(plan.pictures, plan.steps, plan.size)
    turns = [replace(one, prompt=f"{one.prompt} <lora:bench-{'ab'[n % 2]}:0.5>") for n, one in enumerate(plain)]
    with starting({"darkroom": partial(run.engine, name, lora_dir=str(folder))}) as (subjects, _):
        ours = subjects["darkroom"]
        found: dict[str, list[float]] = {"plain": [], "turns": []}
        ours.run(turns, len(turns))
        for _ in range(plan.rounds):
            for label, wanted in (("plain", plain), ("turns", turns)):
                found[label].append(len(wanted) / _seconds(partial(ours.run, wanted, len(wanted))))
    yield ratios(f"{_work(name, plan)}: two adapters in turns ÷ none, pictures/s", found["turns"], found["plain"])


def memory(run: Run) -> Iterator[Row]:
    """A server's memory after few and after many changes of models, with pictures in between."""
    early, late, between = (2, 8, 10) if run.quick else (5, 50, 20)
    folder = run.conditions.folder / "two"
    folder.mkdir(exist_ok=True)
    for letter in "ab":
        for path in (MINI, MINI.with_suffix(".yaml")):
            copy(path, folder / f"bench-{letter}{path.suffix}")
    flags = ("--ckpt-dir", str(folder), "--model-memory-gb", "0.1", "--no-ui")
    server = Served(Model(name="mini", path=folder / "bench-a.safetensors"), run.conditions, *flags)
    found: dict[int, int] = {}
    try:
        titles = [title for title in server.titles() if "bench-" in title]
        for count in range(1, late + 1):
            asked = {"override_settings": {"sd_model_checkpoint": titles[count % 2]}}
            for order in orders(between, 2, 64):
                server.draw(order, **asked)
            if count in (early, late):
                found[count] = resident_bytes(server.pid)
                tell(f"after {count} changes: {found[count] / 1e6:.0f} MB")
    finally:
        server.close()
    for count, nbytes in found.items():
        name = f"resident after {count} changes of models and {count * between} pictures"
        yield Row(name=name, values=(nbytes / 1e6,), unit="MB")
    yield Row(name="growth between the two", values=(100 * (found[late] / found[early] - 1),), unit="%", at_most=1.0)


SCENARIOS: Mapping[str, Callable[[Run], Iterator[Row]]] = MappingProxyType(
    {
        "solo": solo, "saturated": saturated, "http": http, "short": short, "poisson": poisson, "models": models,
        "adapters": adapters, "memory": memory, "start": start,
    }
)  # fmt: skip


def _work(name: str, plan: Plan) -> str:
    return f"{name} {plan.size}², {plan.steps} steps"


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
