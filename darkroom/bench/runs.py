"""One run of the benchmark: what was asked for, scenario by scenario, into a JSON file and a page of Markdown."""

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import torch

from darkroom.bench import machine, rows
from darkroom.bench.rows import Row
from darkroom.bench.scenarios import SCENARIOS, Plan, Run, tell
from darkroom.bench.subjects import Conditions, NotHereError

_ON_CPU = ("diffusers float32", "diffusers bfloat16", "stable-diffusion.cpp")
_ON_CUDA = ("diffusers float16", "diffusers float16 compiled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line says. `rounds` and `steps` 0 leave them open."""

    quick: bool
    scenarios: tuple[str, ...]
    models: tuple[str, ...]
    device: str
    threads: int
    rounds: int
    steps: int
    peers: bool
    compiled: bool | None
    profile: bool
    folder: Path
    output: Path


def measure(wanted: Wanted) -> None:
    """Measure, write as it goes along, and print the page."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if wanted.device == "auto" else wanted.device
    torch.set_num_threads(wanted.threads)
    now = datetime.now().astimezone()
    wanted.output.mkdir(parents=True, exist_ok=True)
    stem = wanted.output / now.strftime("%Y%m%d-%H%M%S")
    gflops = {name: machine.matmul_gflops(getattr(torch, name), device) for name in ("float32", "bfloat16")}
    peaks = {f"matrix product, {name}": f"{value:.0f} GFLOP/s" for name, value in gflops.items()}
    peaks["copy within memory"] = f"{machine.copy_gb_per_s(device):.1f} GB/s"
    about = machine.describe(wanted.threads, device) | peaks
    when = now.isoformat(timespec="seconds")
    asked = {name: str(value) for name, value in asdict(wanted).items()}
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            conditions=Conditions(device=device, threads=wanted.threads, folder=Path(folder)),
            plans={name: _plan(name, device, wanted) for name in wanted.models},
            peers=wanted.peers,
            compiled=device == "cuda" if wanted.compiled is None else wanted.compiled,
            quick=wanted.quick,
            matmul_gflops=gflops["bfloat16"],
            models=wanted.folder,
            profiles=_profiles(stem) if wanted.profile else None,
        )
        for name in wanted.scenarios:
            tell(name)
            found[name] = _rows(name, run)
            document: dict[str, object] = {"when": when, "asked": asked, "machine": about}
            stem.with_suffix(".json").write_text(json.dumps(document | {"found": rows.as_json(found)}, indent=1) + "\n")
            stem.with_suffix(".md").write_text(rows.page(when, about, found))
    print(stem.with_suffix(".md").read_text())
    print(f"written to {stem}.json and .md")


def _rows(name: str, run: Run) -> list[Row]:
    """What a scenario finds; if something is missing for it, a row that says what."""
    found: list[Row] = []
    try:
        found.extend(SCENARIOS[name](run))
    except NotHereError as error:
        found.append(Row(name=name, note=str(error)))
    return found


def _profiles(stem: Path) -> Path:
    folder = stem.with_name(f"{stem.name}-profiles")
    folder.mkdir()
    return folder


def _plan(name: str, device: str, wanted: Wanted) -> Plan:
    """How much of a model is measured: what takes minutes on a processor takes seconds on a GPU."""
    peers = _ON_CPU if device == "cpu" else _ON_CUDA
    if name == "mini":
        rounds = 3 if wanted.quick else 5
        plan = Plan(size=128, steps=20, rounds=rounds, pictures=16, peers=peers, serial=peers[:1])
    elif device == "cuda":
        size = 512 if name == "sd15" else 1024
        plan = Plan(size=size, steps=20, rounds=5, pictures=32, peers=peers, serial=peers)
    elif name == "sd15":
        rounds = 1 if wanted.quick else 2
        plan = Plan(size=512, steps=4, rounds=rounds, pictures=2, peers=peers, serial=())
    else:  # fp32 of both sides would not fit into the memory of small machines
        plan = Plan(size=1024, steps=1, rounds=1, pictures=2, peers=peers[1:2], serial=peers[1:2])
    return replace(plan, rounds=wanted.rounds or plan.rounds, steps=wanted.steps or plan.steps)
