"""Arguments to settings, and settings to a server, a picture or a table. Imports nothing heavy before it is needed."""

import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from darkroom import __version__, accounts, job_commands, model_commands
from darkroom.accounts import check_access, exposures
from darkroom.audit_command import audit
from darkroom.bench.command import bench
from darkroom.engine.allocator import keep_freed_memory
from darkroom.errors import DarkroomError
from darkroom.options.store import Options
from darkroom.public_link import Share, with_login
from darkroom.setting_flags import takes_settings
from darkroom.settings import Settings

if TYPE_CHECKING:
    from darkroom.api.convert import Prepared
    from darkroom.engine.client import Engine, Event
    from darkroom.jobs.spec import CheckpointInfo
    from darkroom.tracing import Tracer

app = typer.Typer(
    name="darkroom",
    help="Darkroom: a Stable Diffusion image server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(accounts.users, name="user")
app.add_typer(accounts.keys, name="key")
app.add_typer(model_commands.models, name="models")
app.add_typer(job_commands.jobs, name="jobs")
app.command()(bench)
app.command()(audit)
console = Console(stderr=True)
log = logging.getLogger(__name__)

_DRAIN_S = 10


def main() -> None:
    """Run the command line; a mistake of the user's is one line, not a traceback."""
    keep_freed_memory()  # before libraries start threads: one that is there by then may keep a heap of its own
    try:
        app()
    except DarkroomError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        sys.exit(1)


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
@takes_settings
def serve(*, settings: Settings) -> None:
    """Serve the API. Answers at once; /ready says when the model is loaded."""
    import uvicorn
    from fastapi import FastAPI

    from darkroom.api.app import create_app
    from darkroom.api.server import Server, impatient
    from darkroom.api.traces import UNTRACED
    from darkroom.engine.local import LocalEngine
    from darkroom.engine.watching import UNWATCHED
    from darkroom.extensions import load
    from darkroom.ui.mount import mount

    say, warn = partial(_tell, settings), partial(_tell, settings, warning=True)
    settings = with_login(settings, say)
    check_access(settings)
    share = Share(settings=settings, tell=say, warn=warn)
    tracer = _tracer(settings)
    served: list[FastAPI] = []

    def create() -> FastAPI:
        extensions = load(settings.extensions_left_out, enabled=settings.extensions)
        engine = LocalEngine(settings, tracer or UNWATCHED)
        options = _options(settings, engine.checkpoints())
        if not options.snapshot().list_hidden_files:
            engine.refresh(hidden=False)
        application = create_app(settings, engine, options, extensions, tracer or UNTRACED)
        if settings.ui:
            mount(application, settings, lambda: _is_idle(engine))
        served.append(application)
        return application

    def tell() -> None:
        for application in served:
            application.state.desk.stopping.begin(_DRAIN_S)
        share.close()

    config = uvicorn.Config(
        create,
        factory=True,
        http=impatient(settings.slow_reader_s),
        host=settings.bind_host,
        port=settings.port,
        root_path=settings.root_path,
        ssl_keyfile=settings.tls_keyfile,
        ssl_certfile=settings.tls_certfile,
        log_level=settings.log_level,
        log_config=None if settings.log_format == "json" else uvicorn.config.LOGGING_CONFIG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    scheme = "https" if settings.tls_certfile else "http"
    with _bind(settings.bind_host, settings.port) as bound:
        host, port = bound.getsockname()[:2]
        say(f"Darkroom listens on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        for note in exposures(settings):
            warn(note)
        share.open(port)
        Server(config, tell).run(sockets=[bound])


def _is_idle(engine: "Engine") -> bool:
    """Whether the model is loaded and nothing is drawn."""
    return engine.ready() and all(job.state not in {"queued", "running"} for job in engine.jobs())


def _tell(settings: Settings, text: str, *, warning: bool = False) -> None:
    """Say something to whoever started the server, or to the program that reads its log."""
    if settings.log_format == "json":
        log.log(logging.WARNING if warning else logging.INFO, text)
    else:
        console.print(text, style="yellow" if warning else None, highlight=False, markup=False, soft_wrap=True)


def _tracer(settings: Settings) -> "Tracer | None":
    """Who makes traces where they are wanted. Raises BadParameter where the packages for it are missing."""
    if not settings.traces_wanted:
        return None
    try:
        from darkroom.tracing import open_tracer
    except ImportError:
        raise typer.BadParameter("traces need OpenTelemetry: pip install 'darkroom[opentelemetry]'") from None
    return open_tracer(settings.otlp_endpoint)


def _options(settings: Settings, checkpoints: "Sequence[CheckpointInfo]") -> Options:
    """The options, of which `--ckpt` decides the checkpoint. Raises BadParameter if a file of a flag is not there."""
    if settings.vae_path is not None and not settings.vae_path.is_file():
        raise typer.BadParameter(f"vae_path: {settings.vae_path} is not there")
    if settings.ckpt is None:
        return Options(settings.options_file)
    if not settings.ckpt.exists():
        raise typer.BadParameter(f"ckpt: {settings.ckpt} is not there")
    return Options(settings.options_file, {"sd_model_checkpoint": checkpoints[0].path})


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
@takes_settings
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
    cfg_scale: Annotated[
        float | None, typer.Option("--cfg", help="How strongly the prompt guides; 7 if left out, for FLUX.1 1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="-1 draws one.")] = -1,
    sampler: Annotated[str, typer.Option(help="Name of the sampler.")] = "Euler",
    scheduler: Annotated[str, typer.Option(help="Name of the noise schedule.")] = "Automatic",
    checkpoint: Annotated[str, typer.Option(help="Name of the checkpoint; the configured one if left out.")] = "",
    count: Annotated[int, typer.Option(help="Number of pictures.", min=1)] = 1,
    settings: Settings,
) -> None:
    """Make pictures and write them to files, with their parameters inside."""
    left_open = {"width": width, "height": height, "cfg_scale": cfg_scale}
    fields: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": steps,
        "seed": seed,
        "sampler_name": sampler,
        "scheduler": scheduler,
        "n_iter": count,
        **{name: value for name, value in left_open.items() if value is not None},
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
    values = _options(settings, known).snapshot()
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
