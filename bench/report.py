"""Measurements as a Markdown table."""

from collections.abc import Sequence
from statistics import median
from typing import Any


def spread(values: Sequence[float], unit: str = "") -> str:
    """Median and range."""
    return f"{median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def table(found: dict[str, Any]) -> str:
    """What was measured, where, and with what."""
    asked, rounds = found["asked"], found["rounds"]
    work = f"{asked['steps']} steps, {asked['size']}x{asked['size']}"
    gflops = found["matmul_gflops"]
    rows = [
        (
            f"Darkroom over HTTP, {asked['clients']} clients, {work}",
            spread([r["darkroom"] for r in rounds], " pictures/s"),
        ),
        (f"diffusers in fp32, one at a time, {work}", spread([r["diffusers"] for r in rounds], " pictures/s")),
        ("ratio, turn by turn", spread(found["ratio"])),
        (f"one picture over HTTP, warm, {work}", spread(found["solo_s"], " s")),
        ("from `darkroom serve` to ready", f"{found['ready_s']:.1f} s"),
        ("from `darkroom serve` to the first picture", f"{found['first_picture_s']:.1f} s"),
        ("`darkroom --help`", f"{found['help_s']:.2f} s"),
        *found.get("switches", []),
        ("matrix product fp32, bf16", f"{gflops['float32']:.0f}, {gflops['bfloat16']:.0f} GFLOP/s"),
    ]
    lines = ["| measured | median (range) |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    machine = [f"- {name}: {value}" for name, value in found["machine"].items()]
    return "\n".join([f"# Measured {found['when']}", "", *lines, *machine, ""])
