"""`darkroom bench`: the command. Imports nothing heavy before it has to."""

import os
from pathlib import Path
from typing import Annotated

import typer

SCENARIOS = ("solo", "saturated", "http", "short", "poisson", "models", "adapters", "memory", "start")
MODELS = ("mini", "sd15", "sdxl")


def bench(  # noqa: PLR0913  every choice is a flag
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A few minutes instead of hours: the embedded model.")] = False,
    scenario: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SCENARIOS)}; all if left out.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(MODELS)}; the large ones are random.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for what is there.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads of every side; 0 takes every core.")] = 0,
    rounds: Annotated[int, typer.Option(min=0, help="Turns of every side; 0 takes what the model can bear.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="Sampling steps; 0 takes what the model can bear.")] = 0,
    peers: Annotated[bool, typer.Option(help="Measure others beside Darkroom.")] = True,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Measure compiled networks too; on a GPU if left out."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Write torch's profiles beside the results.")] = False,
    folder: Annotated[Path, typer.Option(help="Where random checkpoints are kept for the next run.")] = Path(
        "bench-models"
    ),
    output: Annotated[Path, typer.Option(help="Where the JSON and the table go.")] = Path("bench-results"),
) -> None:
    """Measure this machine: pictures per second, latency, changes of models, memory, beside what others use."""
    unknown = [name for name in scenario or () if name not in SCENARIOS]
    unknown += [name for name in model or () if name not in MODELS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is unknown; there are {', '.join((*SCENARIOS, *MODELS))}")
    from darkroom.bench.runs import Wanted, measure

    measure(
        Wanted(
            quick=quick,
            scenarios=tuple(scenario or SCENARIOS),
            models=tuple(model or (("mini",) if quick else ("mini", "sd15"))),
            device=device,
            threads=threads or len(os.sched_getaffinity(0)),
            rounds=rounds,
            steps=steps,
            peers=peers,
            compiled=compiled,
            profile=profile,
            folder=folder.absolute(),
            output=output.absolute(),
        )
    )
