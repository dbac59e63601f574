"""`python -m darkroom.bench.switching JSON`: what a change of weights takes, measured against copying as many bytes.

Two checkpoints take turns, with memory for one of them (a cold switch reads a file from the page cache) and for both (a
warm one finds everything in place); then two adapters do. Every time is divided by that of copying the same bytes from
one place in memory to another that has been used before. Last, resident memory after few and after many cold switches.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open

from darkroom.bench.machine import resident_bytes
from darkroom.bench.rows import Row
from darkroom.bench.subjects import Conditions, Model, NotHereError
from darkroom.bench.weights import random_adapter
from darkroom.engine.allocator import keep_freed_memory
from darkroom.nets.adapters import AdapterFile
from darkroom.nets.merging import Share
from darkroom.nets.network import Network, Variant
from darkroom.nets.precision import choose_dtype
from darkroom.nets.store import Store

RANK = 16
ROUNDS = 7
EARLY, LATE = 5, 50
"""Switches after which resident memory is compared."""

One = tuple[str, str | None]
"""A checkpoint and the YAML beside it, if there is one."""


def measured_apart(model: Model, conditions: Conditions) -> list[Row]:
    """Measured in a process of its own, so that nothing else is in its memory. Raises NotHereError."""
    told = {"name": model.name, "path": str(model.path), "folder": str(conditions.folder)}
    told |= {"device": conditions.device, "threads": str(conditions.threads)}
    command = [sys.executable, "-m", "darkroom.bench.switching", json.dumps(told)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=conditions.environment, check=False)
    if done.returncode:
        raise NotHereError(f"the process ended with {done.returncode}")
    return [Row(**{**one, "values": tuple(one["values"])}) for one in json.loads(done.stdout)]


def main() -> None:
    """Measure and print JSON."""
    told = json.loads(sys.argv[1])
    keep_freed_memory()
    torch.set_num_threads(int(told["threads"]))
    with torch.inference_mode():
        found = list(_measure(told["name"], _pair(Path(told["path"]), Path(told["folder"])), told["device"]))
    sys.stdout.write(json.dumps([asdict(row) for row in found]))


def _pair(path: Path, folder: Path) -> list[One]:
    """The checkpoint under two names."""
    config = path.with_suffix(".yaml")
    found: list[One] = []
    for letter in "ab":
        link = folder / f"{path.stem}-{letter}.safetensors"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        found.append((str(link), str(config) if config.is_file() else None))
    return found


def _measure(name: str, pair: Sequence[One], device_name: str) -> Iterator[Row]:
    device = torch.device(device_name)
    dtype = choose_dtype("auto", device)
    tight = Store(device, dtype, 1)
    for one in pair:
        tight.get(*one)
    cold = _in_turn(tight.get, pair, device)
    nbytes = tight.nbytes
    yield from _memory(name, tight, pair)
    tight.clear()
    roomy = Store(device, dtype, 4 * nbytes)
    for one in pair:
        roomy.get(*one)
    warm = _in_turn(roomy.get, pair, device)
    adapter_nbytes, adapter = _adapters(roomy.get(*pair[0]), pair[0][0], device)
    roomy.clear()
    copies, adapter_copies = _copy(nbytes, device), _copy(adapter_nbytes, device)
    yield Row(name=f"{name}: copying its {nbytes / 1e6:.0f} MB in memory", values=tuple(copies), unit="s")
    yield _by(f"{name}: warm switch ÷ copy", warm, copies, at_most=1.3)
    yield _by(f"{name}: cold switch, from the page cache, ÷ copy", cold, copies)
    yield _by(f"{name}: adapter switch ÷ copy of its {adapter_nbytes / 1e6:.0f} MB", adapter, adapter_copies)


def _by(name: str, seconds: Sequence[float], copies: Sequence[float], at_most: float | None = None) -> Row:
    return Row(name=name, values=tuple(one / median(copies) for one in seconds), at_most=at_most)


def _in_turn(switch: Callable[..., object], things: Sequence[tuple[Any, ...]], device: torch.device) -> list[float]:
    """The seconds that it takes to switch to one thing after the other."""
    return [_seconds(partial(switch, *things[count % len(things)]), device) for count in range(ROUNDS)]


def _adapters(network: Network, checkpoint: str, device: torch.device) -> tuple[int, list[float]]:
    """Two adapters of every matrix of the denoiser take turns: the bytes of the weights that change, and seconds."""
    with safe_open(checkpoint, framework="pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  not a mapping
    plain = network.nbytes
    shares = []
    for seed in (1, 2):
        layers: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in random_adapter(shapes, RANK, seed).items():
            layer, _, part = key.partition(".")
            layers.setdefault(layer, {})[part] = tensor
        shares.append(Share(key=seed, file=AdapterFile(layers, {}), strength=1.0))

    def change(share: Share) -> None:
        network.variant = Variant(unet=(share,))
        network.merge("denoiser")

    change(shares[1])
    return network.nbytes - plain, _in_turn(change, [(share,) for share in shares], device)


def _memory(name: str, store: Store, pair: Sequence[One]) -> Iterator[Row]:
    """Resident memory after few and after many cold switches."""
    found = {}
    for count in range(1, LATE + 1):
        store.get(*pair[count % 2])
        if count in (EARLY, LATE):
            found[count] = resident_bytes()
    growth = 100 * (found[LATE] / found[EARLY] - 1)
    words = f"{name}: resident after {LATE} cold switches, above that after {EARLY}"
    yield Row(name=words, values=(growth,), unit="%", at_most=1.0, note=f"{found[LATE] / 1e6:.0f} MB")


def _copy(nbytes: int, device: torch.device) -> list[float]:
    """How long copying so many bytes takes, from memory to memory."""
    source, target = (torch.ones(nbytes, dtype=torch.uint8, device=device) for _ in range(2))
    return [_seconds(lambda: target.copy_(source), device) for _ in range(ROUNDS)]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
