"""`darkroom models pull`, `inspect` and `convert`: files of models, one at a time. Imports nothing heavy before it has
to.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from darkroom.setting_flags import takes_settings
from darkroom.settings import Settings

if TYPE_CHECKING:
    from darkroom.pull.commands import Watch
    from darkroom.pull.transfer import Report

files = typer.Typer()
console = Console(stderr=True)


@files.command("pull")
@takes_settings
def pull_model(  # noqa: PLR0913  every property of a download is a flag
    *,
    source: Annotated[str, typer.Argument(help="owner/name of a repository, @revision behind it or not; or a URL.")],
    file: Annotated[list[str] | None, typer.Option(help="File of the repository; may be given several times.")] = None,
    to: Annotated[
        str,
        typer.Option(
            help="checkpoint, lora, vae, embedding, hypernetwork, upscaler, or a folder; by its weights if left out."
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="File name to give it; its own if left out.")] = "",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    variant: Annotated[str, typer.Option(help="Variant of a folder's weights, such as fp16.")] = "",
    diffusers: Annotated[bool, typer.Option("--diffusers", help="Take the folder and not the single file.")] = False,
    sha256: Annotated[str | None, typer.Option(help="The hash that the file must have.")] = None,
    token: Annotated[str | None, typer.Option(help="Access token; HF_TOKEN if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of the same name.")] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also from hosts that are not on the public network.")
    ] = False,
    attempts: Annotated[int, typer.Option(help="Attempts on end that bring nothing, before it ends.", min=1)] = 5,
    max_gb: Annotated[float, typer.Option(help="Largest download, gigabytes.", min=0)] = 100.0,
    settings: Settings,
) -> None:
    """Download a model to the folder where it is looked for. What broke off goes on where it stopped."""
    import anyio

    from darkroom.pull.commands import Order, pull
    from darkroom.pull.transfer import Rules

    order = Order(
        source=source, files=file or (), to=to, name=name, revision=revision, variant=variant, diffusers=diffusers,
        sha256=sha256, token=token, overwrite=overwrite,
    )  # fmt: skip
    rules = Rules(public_only=not allow_private, max_bytes=int(max_gb * 1e9), attempts=attempts)
    with _bars() as watch:
        pulled = anyio.run(pull, order, settings, rules, watch)
    for one in pulled:
        typer.echo(one.path)
        console.print(
            f"sha256 {one.sha256}" + ("" if one.fresh else ", was there already"), highlight=False, markup=False
        )


@contextmanager
def _bars() -> "Iterator[Watch]":
    """A bar for each file."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def watch(name: str, size: int | None) -> "Report":
            bar = progress.add_task(name, total=size)
            return lambda done, total: progress.update(bar, completed=done, total=total or size)

        yield watch


@files.command("inspect")
@takes_settings
def inspect_model(
    *,
    model: Annotated[str, typer.Argument(help="A file, a folder in diffusers' layout, or the name of a checkpoint.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write it as JSON.")] = False,
    settings: Settings,
) -> None:
    """Tell what a model is, without loading it and without running anything in it."""
    from darkroom.nets.description import describe_model

    facts = describe_model(_find(model, settings), with_tensors=tensors, hashing=not settings.no_hashing)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(value))
    Console().print(table, markup=False)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_cell(item)}" for name, item in value.items())
    return "-" if value is None else str(value)


def _cell(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _find(model: str, settings: Settings) -> Path:
    """A file or folder by its path, or else a checkpoint by any of its names. Raises UnknownName."""
    if Path(model).exists():
        return Path(model)
    from darkroom.api.checkpoints import get_checkpoint
    from darkroom.engine.catalogue import Catalogue

    catalogue = Catalogue(settings)
    try:
        return Path(get_checkpoint(catalogue.checkpoints(), model).filename)
    finally:
        catalogue.close()


@files.command("convert")
def convert_model(
    file: Annotated[Path, typer.Argument(help="A pickled file: .ckpt, .pt, .pth or .bin.", exists=True)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; beside the pickled one if left out.")
    ] = None,
) -> None:
    """Write a pickled file's weights as safetensors. The pickled file stays as it is, and nothing in it runs."""
    from darkroom.nets.containers import container_of
    from darkroom.nets.conversion import make_copy

    target = output or file.with_suffix(".safetensors")
    if container_of(file) != "pickle":
        raise typer.BadParameter(f"{file.name}: holds safetensors already, whatever it is called")
    if target.exists():
        raise typer.BadParameter(f"{target}: is there already; say --output")
    try:
        make_copy(file, target)
    except OSError as error:
        raise typer.BadParameter(f"{target}: cannot be written: {error.strerror}") from None
    typer.echo(target)
