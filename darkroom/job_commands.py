"""`darkroom jobs`: asks a running server for work and follows it, from a shell.

Imports nothing heavy before it has to.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from darkroom.client import Client, Job

jobs = typer.Typer(help="Jobs of a running server: ask, follow, fetch, stop.", no_args_is_help=True)
console = Console(stderr=True)

HERE = "http://127.0.0.1:7860"
Url = Annotated[str, typer.Option(envvar="DARKROOM_URL", help="The server.")]
Key = Annotated[str | None, typer.Option(envvar="DARKROOM_KEY", help="An API key.")]
User = Annotated[str | None, typer.Option(envvar="DARKROOM_USER", help="user:password.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which server, and who asks."""

    url: str
    key: str | None
    user: str | None


@jobs.callback()
def where(
    context: typer.Context,
    url: Url = HERE,
    key: Key = None,
    user: User = None,
) -> None:
    """Remember which server is asked."""
    context.obj = Where(url=url, key=key, user=user)


@jobs.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most jobs.")] = 20,
) -> None:
    """The last jobs."""
    with _asking(context) as client:
        found = client.jobs(state=state, limit=limit).items
    table = Table("id", "kind", "state", "progress", "owner", "age", box=None)
    for job in found:
        age = time.time() - job.submitted_at
        table.add_row(job.id, job.kind, job.state, f"{job.progress:.0%}", job.owner, f"{age:.0f} s")
    Console().print(table)


@jobs.command("submit")
def submit(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="txt2img, img2img, extras, interrogate, merge, generate.")],
    request: Annotated[
        Path | None, typer.Argument(help="The request as a JSON file; standard input if left out.")
    ] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again gets the same job.")] = None,
    priority: Annotated[int | None, typer.Option(help="Where it stands among those that wait.")] = None,
) -> None:
    """Ask for work and print the job's id."""
    text = request.read_text(encoding="utf-8") if request else sys.stdin.read()
    try:
        fields: Any = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"the request is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise typer.BadParameter("the request is no JSON object")
    with _asking(context) as client:
        typer.echo(client.submit(kind, idempotency_key=idempotency_key, priority=priority, **fields).id)


@jobs.command("show")
def show(context: typer.Context, job_id: JobId) -> None:
    """Everything that is known of a job, as JSON."""
    with _asking(context) as client:
        typer.echo(client.job(job_id).model_dump_json(indent=2))


@jobs.command("wait")
def wait(context: typer.Context, job_id: JobId) -> None:
    """Wait until a job has ended; the exit status says whether it is done."""
    with _asking(context) as client:
        ended = _follow(client, job_id)
    typer.echo(ended.state)
    _insist(ended)


@jobs.command("fetch")
def fetch(
    context: typer.Context,
    job_id: JobId,
    folder: Annotated[Path, typer.Option("--to", help="Where the pictures go.")] = Path(),
) -> None:
    """Wait for a job and write its pictures into a folder."""
    with _asking(context) as client:
        ended = _follow(client, job_id)
        _insist(ended)
        for image in ended.images:
            ending = image.media_type.rpartition("/")[2].replace("jpeg", "jpg")
            path = folder / f"{job_id}-{image.place}.{ending}"
            _write(path, client.file(image))
            typer.echo(path)


@jobs.command("cancel")
def cancel(context: typer.Context, job_id: JobId) -> None:
    """Drop a job."""
    with _asking(context) as client:
        typer.echo(client.cancel(job_id).state)


@jobs.command("interrupt")
def interrupt(context: typer.Context, job_id: JobId) -> None:
    """Stop a job and keep the pictures so far."""
    with _asking(context) as client:
        typer.echo(client.interrupt(job_id).state)


@jobs.command("rerun")
def rerun(context: typer.Context, job_id: JobId) -> None:
    """Do the same again, with the same seeds, and print the new job's id."""
    with _asking(context) as client:
        typer.echo(client.rerun(job_id).id)


@jobs.command("forget")
def forget(context: typer.Context, job_id: JobId) -> None:
    """Remove an ended job with its pictures."""
    with _asking(context) as client:
        job = client.cancel(job_id, forget=True) if client.job(job_id).ended else None
    if job is None:
        raise typer.BadParameter(f"{job_id} has not ended; `cancel` drops it")


def _insist(job: "Job") -> None:
    """Leave with a status that says so where a job came to nothing, and with the reason."""
    if job.state in ("done", "interrupted"):
        return
    if job.error:
        console.print(f"{job.error.code}: {job.error.detail}", markup=False, highlight=False)
    raise typer.Exit(1)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from None


def _asking(context: typer.Context) -> AbstractContextManager["Client"]:
    asked: Where = context.obj
    return asking(asked)


@contextmanager
def asking(asked: Where) -> Iterator["Client"]:
    """A client of the server; what it refuses, and that it is not there, is said in one line."""
    import httpx

    from darkroom.client import Client, Refused

    name, _, password = (asked.user or "").partition(":")
    try:
        with Client(asked.url, key=asked.key, auth=(name, password) if asked.user else None) as client:
            yield client
    except Refused as refused:
        raise typer.BadParameter(str(refused)) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except httpx.HTTPError as error:
        raise typer.BadParameter(f"{asked.url} cannot be reached: {error}") from None


def _follow(client: "Client", job_id: str) -> "Job":
    """The job once it has ended; a bar shows how far it is."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(job_id, total=1.0)
        for happening in client.events(job_id):
            bar.update(task, completed=float(happening.data.get("progress", 0.0)))
    return client.job(job_id)
