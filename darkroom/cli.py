"""Arguments to settings, and settings to a server, a picture or a table. Imports nothing heavy before it is needed."""

import asyncio
import inspect
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from darkroom import __version__, accounts
from darkroom.accounts import check_access, exposures
from darkroom.errors import DarkroomError
from darkroom.options.store import Options
from darkroom.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from darkroom.api.convert import Prepared
    from darkroom.engine.client import Engine, Event

app = typer.Typer(
    name="darkroom",
    help="Darkroom: a Stable Diffusion image server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(accounts.users, name="user")
app.add_typer(accounts.keys, name="key")
console = Console(stderr=True)

_SERVER_ONLY = frozenset(
    {
        "host",
        "port",
        "listen",
        "subpath",
        "tls_keyfile",
        "tls_certfile",
        "api_auth",
        "api_auth_file",
        "insecure_no_auth",
        "allowed_hosts",
        "strict",
        "cors_allow_origins",
        "cors_allow_origins_regex",
        "api_server_stop",
        "extensions",
        "without_extensions",
        "max_queue",
        "max_body_bytes",
        "max_image_pixels",
    }
)
"""Settings that mean nothing to a command that serves nobody."""

_SECTION = "Settings (also in the environment and in darkroom.toml)"
_DRAIN_S = 10


def main() -> None:
    """Run the command line; a mistake of the user's is one line, not a traceback."""
    try:
        app()
    except DarkroomError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        sys.exit(1)


def _takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per field of Settings; it is called with the settings, read once, as `settings`."""
    serving = function.__name__ == "serve"
    names = [name for name in Settings.model_fields if serving or name not in _SERVER_ONLY]

    def command(**arguments: Any) -> None:
        flags = {name: arguments.pop(name) for name in names}
        settings = _load(flags, arguments.pop("config"))
        logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s:     %(message)s")
        function(settings=settings, **arguments)

    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "settings"]
    command.__signature__ = inspect.Signature([*own, *map(_flag, names), _CONFIG])  # type: ignore[attr-defined]
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    return command


def _flag(name: str) -> inspect.Parameter:
    """The flag of one setting. Its default is "not given", so that environment and file have their say."""
    field = Settings.model_fields[name]
    default = "" if field.default in {None, ""} or isinstance(field.default, SecretStr) else field.default
    note = f"{field.description} [{ENV_PREFIX}{name.upper()}]" + (f" [default: {default}]" if default != "" else "")
    dashed = name.replace("_", "-")
    flag = f"--{dashed}/--no-{dashed}" if field.annotation is bool else f"--{dashed}"
    kind = field.annotation if field.annotation in {bool, int, float} else str
    option = typer.Option(flag, help=note, show_default=False, rich_help_panel=_SECTION)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="A TOML file of settings instead of darkroom.toml in the data folder or here.",
            exists=True,
            dir_okay=False,
            rich_help_panel=_SECTION,
        ),
    ],
)


def _load(flags: dict[str, Any], config: Path | None) -> Settings:
    """The settings. Raises BadParameter naming the setting and what it may be."""
    try:
        return Settings.load(flags, config)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors(include_url=False))
        raise typer.BadParameter("; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"settings file: {error}") from None


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"darkroom {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Darkroom: a Stable Diffusion image server."""


@app.command()
@_takes_settings
def serve(*, settings: Settings) -> None:
    """Serve the API. Answers at once; /ready says when the model is loaded."""
    import uvicorn
    from fastapi import FastAPI

    from darkroom.api.app import create_app
    from darkroom.engine.local import LocalEngine
    from darkroom.extensions import load

    check_access(settings)

    def create() -> FastAPI:
        extensions = load(settings.extensions_left_out, enabled=settings.extensions)
        return create_app(settings, LocalEngine(settings), Options(settings.options_file), extensions)

    config = uvicorn.Config(
        create,
        factory=True,
        host=settings.bind_host,
        port=settings.port,
        root_path=settings.root_path,
        ssl_keyfile=settings.tls_keyfile,
        ssl_certfile=settings.tls_certfile,
        log_level=settings.log_level,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    scheme = "https" if settings.tls_certfile else "http"
    with _bind(settings.bind_host, settings.port) as bound:
        host, port = bound.getsockname()[:2]
        console.print(f"Darkroom listens on {scheme}://{f'[{host}]' if ':' in host else host}:{port}", highlight=False)
        for note in exposures(settings):
            console.print(f"[yellow]{note}[/]", highlight=False)
        uvicorn.Server(config).run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    """The socket to serve on, so that a port that is taken is told before anything is loaded."""
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise typer.BadParameter(f"cannot bind {host}:{port}: {error.strerror}") from None
    # Connections inherit it. Without it the second packet of a small answer waits 40 ms for the client's sign.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


@app.command()
@_takes_settings
def models(*, settings: Settings) -> None:
    """List the checkpoints that can be used."""
    from darkroom.engine.catalogue import Catalogue

    catalogue = Catalogue(settings)
    table = Table("title", "name", "native size", "file")
    for info in catalogue.checkpoints():
        table.add_row(info.title, info.model_name, str(info.native_size), info.filename)
    Console().print(table)
    catalogue.close()


@app.command()
@_takes_settings
def generate(  # noqa: PLR0913  every field of a picture is a flag
    *,
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; several get a number.")] = Path(
        "darkroom.png"
    ),
    negative: Annotated[str, typer.Option("--negative", "-n", help="What the picture does not show.")] = "",
    width: Annotated[int | None, typer.Option(help="Pixels; the model's native size if left out.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; the model's native size if left out.")] = None,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 20,
    cfg_scale: Annotated[float, typer.Option("--cfg", help="How strongly the prompt guides.")] = 7.0,
    seed: Annotated[int, typer.Option(help="-1 draws one.")] = -1,
    sampler: Annotated[str, typer.Option(help="Name of the sampler.")] = "Euler",
    scheduler: Annotated[str, typer.Option(help="Name of the noise schedule.")] = "Automatic",
    checkpoint: Annotated[str, typer.Option(help="Name of the checkpoint; the configured one if left out.")] = "",
    count: Annotated[int, typer.Option(help="Number of pictures.", min=1)] = 1,
    settings: Settings,
) -> None:
    """Make pictures and write them to files, with their parameters inside."""
    sizes = {name: value for name, value in (("width", width), ("height", height)) if value is not None}
    fields: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": steps,
        "cfg_scale": cfg_scale,
        "seed": seed,
        "sampler_name": sampler,
        "scheduler": scheduler,
        "n_iter": count,
        **sizes,
    }
    written = asyncio.run(_generate(settings, fields, checkpoint, output))
    for path in written:
        typer.echo(path)


async def _generate(settings: Settings, fields: dict[str, Any], checkpoint: str, output: Path) -> list[Path]:
    """Refuse what cannot be done before anything is loaded; then do it."""
    from darkroom.engine.local import LocalEngine

    prepared = _prepare(settings, fields, checkpoint)
    engine = LocalEngine(settings)
    try:
        event = await _follow(engine, prepared)
        return _write(prepared, event, output)
    finally:
        engine.close()


def _prepare(settings: Settings, fields: dict[str, Any], checkpoint: str) -> "Prepared":
    from darkroom.api.checkpoints import get_checkpoint
    from darkroom.api.convert import to_spec
    from darkroom.api.models import Txt2Img
    from darkroom.engine.catalogue import Catalogue

    catalogue = Catalogue(settings)
    known = catalogue.checkpoints()
    catalogue.close()
    if checkpoint:
        fields["override_settings"] = {"sd_model_checkpoint": get_checkpoint(known, checkpoint).title}
    values = Options(settings.options_file).snapshot()
    prepared = to_spec(Txt2Img.model_validate(fields), values, settings, known, catalogue.small)
    for warning in prepared.warnings:
        console.print(f"[yellow]{warning}[/]", highlight=False)
    return prepared


async def _follow(engine: "Engine", prepared: "Prepared") -> "Event":
    """Show the job's progress until it ends. Raises what it failed with."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
    )
    last = None
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("loading", total=1.0)
        async for event in engine.events(engine.submit(prepared.spec)):
            last = event
            label = "drawing" if event.status.fraction else "loading"
            progress.update(bar, completed=event.status.fraction, description=label)
    assert last is not None, "a stream of events is never empty"
    if last.error:
        raise last.error
    return last


def _write(prepared: "Prepared", event: "Event", output: Path) -> list[Path]:
    from darkroom.api.results import encode_shot, finish
    from darkroom.images.codecs import Format

    shots = finish(prepared, event)
    formats: dict[str, Format] = {
        ".jpg": "jpg", ".jpeg": "jpeg", ".webp": "webp", ".avif": "avif", ".gif": "gif",
    }  # fmt: skip
    written = []
    for place, shot in enumerate(shots):
        path = output if len(shots) == 1 else output.with_stem(f"{output.stem}-{place}")
        path.parent.mkdir(parents=True, exist_ok=True)
        file_format = formats.get(path.suffix.lower(), "png")
        path.write_bytes(encode_shot(shot, prepared, file_format=file_format))
        written.append(path)
    return written
