"""`make bench`: Darkroom over HTTP against plain diffusers, turn by turn, never both at once.

Writes `bench/results/<time>.json` and `.md`, and prints the latter.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

import darkroom
from bench import baseline, load, machine, report, switching
from tests.e2e.serving import Server, serving

RESULTS = Path(__file__).parent / "results"
CHECKPOINT = Path(darkroom.__file__).parent / "mini" / "darkroom-mini.safetensors"


def main() -> None:
    """Measure, print, write."""
    wanted = arguments()
    torch.set_num_threads(wanted.threads)
    now = datetime.now().astimezone()
    found = {
        "when": now.isoformat(timespec="seconds"),
        "asked": {name: str(value) for name, value in vars(wanted).items()},
    }
    found |= measure(wanted)
    text = report.table(found)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / now.strftime("%Y%m%d-%H%M%S")
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)
    print(f"written to {stem}.json and .md")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of either side")
    parser.add_argument(
        "--pictures", type=int, default=16, help="pictures of Darkroom per turn; a quarter of them of diffusers"
    )
    parser.add_argument("--clients", type=int, default=8, help="clients at once")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of either side")
    parser.add_argument(
        "--switches", action=argparse.BooleanOptionalAction, default=True, help="of full-size models too"
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="a single file with its YAML beside it")
    return parser.parse_args()


def measure(wanted: argparse.Namespace) -> dict[str, Any]:
    """Everything, one thing after the other."""
    found: dict[str, Any] = {
        "machine": machine.describe(wanted.threads),
        "help_s": min(help_seconds() for _ in range(5)),
    }
    found["matmul_gflops"] = {name: machine.matmul_gflops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    env = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(wanted.threads))
    flags = () if wanted.checkpoint == CHECKPOINT else ("--ckpt-dir", str(wanted.checkpoint.parent))
    first, *others = load.orders(8, wanted.steps, wanted.size)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with serving(Path(folder), *flags, env=env) as server:
            found["ready_s"] = time.perf_counter() - begin
            load.solo(server, first)
            found["first_picture_s"] = time.perf_counter() - begin
            found["solo_s"] = [load.seconds(partial(load.solo, server, order)) for order in others]
            found["rounds"] = turns(server, wanted)
    if wanted.switches:
        found["switches"] = switching.measured_apart(wanted.threads).rows()
    found["ratio"] = [turn["darkroom"] / turn["diffusers"] for turn in found["rounds"]]
    return found


def help_seconds() -> float:
    """How long `darkroom --help` takes, as a newcomer sees it."""
    command = [sys.executable, "-m", "darkroom", "--help"]
    return load.seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def turns(server: Server, wanted: argparse.Namespace) -> list[dict[str, float]]:
    """Pictures per second of either side, alternating: the one that is not measured stands idle."""
    pipe = baseline.pipeline(wanted.checkpoint)
    pictures = load.orders(wanted.pictures, wanted.steps, wanted.size)
    found = []
    for turn in range(wanted.rounds + 1):
        ours = load.crowd(server, pictures, wanted.clients)
        theirs = load.one_by_one(pipe, pictures[: max(2, wanted.pictures // 4)])
        if turn > 0:  # the first warms both
            found.append({"darkroom": ours, "diffusers": theirs})
            print(f"turn {turn}: {ours:.2f} and {theirs:.2f} pictures/s, ratio {ours / theirs:.2f}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
