"""`darkroom models`: which checkpoints there are, and new ones out of them. Imports nothing heavy before it has to."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from darkroom.file_commands import files
from darkroom.setting_flags import takes_settings
from darkroom.settings import Settings

if TYPE_CHECKING:
    from darkroom.api.merge_request import Merge
    from darkroom.engine.catalogue import Catalogue
    from darkroom.jobs.merging import MergeOrder, Stage
    from darkroom.jobs.spec import CheckpointInfo

models = typer.Typer(
    help="List models, fetch them, look into them, and make new ones out of them.", invoke_without_command=True
)
models.add_typer(files)
console = Console(stderr=True)


@models.callback()
@takes_settings
def default(context: typer.Context, *, settings: Settings) -> None:
    """List the checkpoints, or do what a command says."""
    if context.invoked_subcommand is None:
        _show(settings)
    elif any(_was_given(context, name) for name in context.params):
        raise typer.BadParameter(f"settings go behind the command: darkroom models {context.invoked_subcommand} --...")


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@models.command("list")
@takes_settings
def list_models(*, settings: Settings) -> None:
    """List the checkpoints that can be used."""
    _show(settings)


@models.command("merge")
@takes_settings
def merge_models(  # noqa: PLR0913  every field of a merge is a flag
    *,
    a: Annotated[str, typer.Argument(help="The checkpoint whose weights are changed.")],
    b: Annotated[str, typer.Argument(help="The second one; every method but No interpolation needs it.")] = "",
    c: Annotated[str, typer.Argument(help="The third one, for Add difference.")] = "",
    method: Annotated[
        str, typer.Option(help="Weighted sum, (1-m)A + mB; Add difference, A + m(B-C); No interpolation, A alone.")
    ] = "Weighted sum",
    multiplier: Annotated[float, typer.Option("--multiplier", "-m", help="m, from -2 to 2.")] = 0.3,
    block_weights: Annotated[
        str,
        typer.Option(help="m of the UNet's blocks IN00 to OUT11, with commas; of one more the first is for the rest."),
    ] = "",
    dtype: Annotated[str, typer.Option(help="Number format of the result: keep, fp32, fp16 or bf16.")] = "keep",
    vae: Annotated[str, typer.Option(help="File name of an autoencoder to bake in.")] = "None",
    discard: Annotated[
        str, typer.Option(help="Regular expression; weights that have it in their names are left out.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="File name without its ending; made of the parents' names if left out.")
    ] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace a file that has the name already.")] = False,
    config_source: Annotated[
        str, typer.Option(help="Whose YAML goes beside the result: A, B or C; B; C; Don't.")
    ] = "A, B or C",
    metadata: Annotated[bool, typer.Option(help="Write the recipe and the parents' texts into the file.")] = True,
    settings: Settings,
) -> None:
    """Merge checkpoints into a new one in their folder."""
    from darkroom.api.merging import to_order

    wire = _wire(
        a=a,
        b=b,
        c=c,
        method=method,
        multiplier=multiplier,
        block_weights=block_weights,
        dtype=dtype,
        vae=vae,
        discard=discard,
        name=name,
        overwrite=overwrite,
        config_source=config_source,
        save_metadata=metadata,
    )
    # The parents' hashes are computed in turn; the thread that computes all of them would only be in the way.
    with _catalogue(settings.model_copy(update={"no_hashing": True})) as catalogue:
        order = to_order(wire, catalogue.checkpoints(), catalogue.small.autoencoders())
        info = _merge(order, catalogue, settings)
    typer.echo(info.filename)
    console.print(info.title, highlight=False, markup=False)


def _wire(**fields: object) -> "Merge":
    """What the same flags are as a request. Raises BadParameter."""
    from darkroom.api.merge_request import Merge

    try:
        return Merge.model_validate(fields)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(f"{entry['loc'][0]}: {entry['msg']}" for entry in error.errors())) from None


def _merge(order: "MergeOrder", catalogue: "Catalogue", settings: Settings) -> "CheckpointInfo":
    """Merge, and show how far it is."""
    from darkroom.engine.merging import merge

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("Reading", total=1)

        def report(stage: "Stage") -> None:
            progress.update(bar, description=stage.text, completed=stage.done, total=stage.total)

        return merge(order, catalogue, settings.checkpoint_dir, report, Event())


def _show(settings: Settings) -> None:
    with _catalogue(settings) as catalogue:
        table = Table("title", "name", "native size", "file")
        for info in catalogue.checkpoints():
            table.add_row(info.title, info.model_name, str(info.native_size), info.filename)
        Console().print(table)


@contextmanager
def _catalogue(settings: Settings) -> "Iterator[Catalogue]":
    from darkroom.engine.catalogue import Catalogue

    catalogue = Catalogue(settings)
    try:
        yield catalogue
    finally:
        catalogue.close()
