"""`darkroom audit`: asks a running server who asked for what. Imports nothing heavy before it has to."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from darkroom.job_commands import HERE, Key, Url, User, Where, asking

if TYPE_CHECKING:
    from darkroom.client import Client, Entry

_PAGE = 500
_COLUMNS = ("when", "owner", "kind", "state", "model", "size", "steps", "images", "seed", "prompt")
_PROMPT_CHARS = 60

_Moment = Annotated[
    str | None, typer.Option(help="A moment such as 2026-01-31 or 2026-01-31T18:00, in this machine's time zone.")
]


def audit(
    owner: Annotated[str | None, typer.Option(help="Only requests of this user or key.")] = None,
    since: _Moment = None,
    until: _Moment = None,
    limit: Annotated[int, typer.Option(min=1, help="Most entries.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object on each line, with all that is kept.")] = False,
    url: Url = HERE,
    key: Key = None,
    user: User = None,
) -> None:
    """Who asked a running server for what and when, the newest first."""
    wanted = {"owner": owner, "since": _moment(since), "until": _moment(until)}
    with asking(Where(url=url, key=key, user=user)) as client:
        found = list(_entries(client, wanted, limit))
    if as_json:
        for entry in found:
            typer.echo(entry.model_dump_json())
        return
    table = Table(*_COLUMNS, box=None)
    for entry in found:
        table.add_row(*_row(entry))
    Console().print(table)


def _entries(client: "Client", wanted: Mapping[str, object], limit: int) -> Iterator["Entry"]:
    """The entries of as many pages as it takes."""
    before: str | None = None
    while limit > 0:
        page = client.audit(**wanted, before=before, limit=min(limit, _PAGE))
        yield from page.items
        limit, before = limit - len(page.items), page.next
        if before is None:
            return


def _moment(text: str | None) -> float | None:
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a moment: {error}") from None


def _row(entry: "Entry") -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    size = f"{entry.width}x{entry.height}" if entry.width else ""
    numbers = ("" if one is None else str(one) for one in (entry.steps, entry.images, entry.seed))
    prompt = entry.prompt if len(entry.prompt) <= _PROMPT_CHARS else entry.prompt[: _PROMPT_CHARS - 3] + "..."
    return (when, entry.owner, entry.kind, entry.state, entry.model or "", size, *numbers, prompt)
