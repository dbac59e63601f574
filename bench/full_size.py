"""`python -m bench.full_size`: the published models at their real size, with random weights: each is written in half
precision, loaded, makes one picture on this processor in bf16, and is deleted again.

The lists of their tensors lie beside the repository. Needs 7 GB of disk at a time. Fails if one takes more than 20 GiB
of memory, or makes no picture.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from darkroom.bench import machine
from darkroom.nets.tensorfile import Form, write_tensors

LISTS = Path(__file__).parents[2] / "shared/reference/state-dicts"
MODELS: Mapping[str, int] = {"sd1": 256, "sd2-v": 256, "sdxl-base": 256, "sdxl-refiner": 256}
"""The models that are tried, and the side of the picture that each makes."""

STEPS = 2
LIMIT_BYTES = 20 * 2**30
NOISE = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One model: what its file has, and what it took to make a picture of it with nothing loaded before."""

    model: str
    weights: int
    file_bytes: int
    peak_bytes: int
    seconds: float


def main() -> None:
    """Try every model that is asked for and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--folder", type=Path, help="where the files are put for the time being")
    wanted = parser.parse_args()
    if not LISTS.is_dir():
        sys.exit(f"There are no lists of tensors in {LISTS}.")
    with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
        trials = [attempt(model, Path(folder)) for model in wanted.models]
    print(page(trials))
    over = [trial.model for trial in trials if trial.peak_bytes > LIMIT_BYTES]
    sys.exit(f"more than 20 GiB of memory: {', '.join(over)}" if over else 0)


def attempt(model: str, folder: Path) -> Trial:
    """Write a model, have a process of its own make a picture with it, and delete it."""
    shapes = published(model)
    checkpoint = folder / "models/Stable-diffusion" / f"{model}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    forms = {name: Form(torch.float16, shape) for name, shape in shapes.items()}
    with checkpoint.open("wb") as file:
        write_tensors(file, forms, {}, (piece for name, shape in shapes.items() for piece in values(name, shape)))
    side = MODELS[model]
    output = folder / f"{model}.png"
    command = [sys.executable, "-m", "darkroom", "generate", "a cat on a red sofa", "--output", str(output)]
    command += ["--steps", str(STEPS), "--width", str(side), "--height", str(side), "--seed", "1"]
    command += ["--models-dir", str(folder / "models"), "--data-dir", str(folder), "--precision", "bf16"]
    seconds, peak_bytes = measured([*command, "--device", "cpu", "--disable-nan-check"])
    with Image.open(output) as picture:
        if picture.size != (side, side):
            raise SystemExit(f"{model}: a picture of {picture.size}")
    size = checkpoint.stat().st_size
    checkpoint.unlink()
    weights = sum(form.count for form in forms.values())
    return Trial(model=model, weights=weights, file_bytes=size, peak_bytes=peak_bytes, seconds=seconds)


def published(model: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors."""
    entries = json.loads(gzip.decompress((LISTS / f"{model}.json.gz").read_bytes()))
    return {name: tuple(shape) for name, (shape, _) in entries.items() if not name.endswith("position_ids")}


def values(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Numbers that keep a network's activations within bounds: norms do nothing, biases are zero, matrices are noise
    by the width of their input.
    """
    count = Form(torch.float16, shape).count
    if len(shape) < 2:
        yield torch.full((count,), 1.0 if name.endswith("weight") else 0.0, dtype=torch.float16)
        return
    generator = torch.Generator().manual_seed(len(name))
    noise = (torch.randn(NOISE, generator=generator) * (0.5 / (count / shape[0]) ** 0.5)).half()
    for start in range(0, count, NOISE):
        yield noise[: count - start]


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds that a process took, and the most memory that it held, mapped files among it."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024


def page(trials: list[Trial]) -> str:
    """The report."""
    rows = [
        f"| {one.model} | {one.weights / 1e9:.2f} | {one.file_bytes / 1e9:.1f} | {one.peak_bytes / 2**30:.1f} "
        f"| {one.seconds:.0f} |"
        for one in trials
    ]
    words = (
        f"One picture of {MODELS['sd1']} pixels in {STEPS} steps, in bf16 on the processor {machine.processor()}, by "
        "a process that starts with nothing loaded: import, load and first use are in the seconds; mapped pages of the "
        "file are in the memory."
    )
    head = ("| model | weights, 10^9 | file, GB | peak memory, GiB | seconds |", "| --- | ---: | ---: | ---: | ---: |")
    return "\n".join(["# Models at their real size, with random weights", "", words, "", *head, *rows, ""])


if __name__ == "__main__":
    main()
