"""Who asked for what and when. Kept apart from jobs and pictures: whoever removes those, removes nothing here.

Called from worker threads; the functions, within a transaction of the book of jobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from darkroom.history import tables
from darkroom.history.database import Database
from darkroom.history.rows import Page, checked, page

_MOST: Final = 2**63 - 1
"""The largest whole number that databases know."""

PROMPT_CHARS: Final = 1000
"""What is kept of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request for work. `id` is its job's; `seed`, `width`, `height`, `steps` are those of its first picture, where
    it draws one; `images` is how many it gave; `work` is in megapixels times steps.
    """

    id: str
    owner: str
    at: float
    kind: str
    state: str = "queued"
    ended_at: float | None = None
    model: str | None = None
    prompt: str = ""
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    images: int | None = None
    work: float | None = None
    priority: int = 0


_ENTRY: Final = TypeAdapter(Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are listed: None leaves a matter open. Times are `time.time()` seconds; `since` counts, `until` no
    more. `before` is a place in the list.
    """

    owner: str | None = None
    kind: str | None = None
    since: float | None = None
    until: float | None = None
    before: str | None = None
    limit: int = 50


class Audit:
    """The entries in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, entry: Entry) -> None:
        """Write down a request that has ended already."""
        with self._database.begin() as session:
            session.add(row_of(entry))

    def find(self, job_id: str) -> Entry | None:
        """The entry of a job."""
        with self._database.begin() as session:
            found = session.get(tables.Entry, job_id)
            return _entry_of(found) if found else None

    def search(self, wanted: Wanted) -> Page[Entry]:
        """Entries, the newest first; without those that cannot be read any more. Raises BadRequest."""
        kind = tables.Entry
        chosen = select(kind)
        if wanted.owner is not None:
            chosen = chosen.where(kind.owner == wanted.owner)
        if wanted.kind is not None:
            chosen = chosen.where(kind.kind == wanted.kind)
        if wanted.since is not None:
            chosen = chosen.where(kind.at >= wanted.since)
        if wanted.until is not None:
            chosen = chosen.where(kind.at < wanted.until)
        with self._database.begin() as session:
            return page(session, chosen, kind, kind.at, _entry_of, before=wanted.before, limit=wanted.limit)

    def forget_before(self, moment: float) -> None:
        """Forget what was asked before a moment."""
        with self._database.begin() as session:
            session.execute(delete(tables.Entry).where(tables.Entry.at < moment))


def row_of(entry: Entry) -> tables.Entry:
    """An entry as a row. Prompts are cut short, and go without what no database keeps, as do seeds."""
    prompt = entry.prompt[:PROMPT_CHARS].encode("utf-8", "replace").decode().replace("\0", "")
    seed = entry.seed if entry.seed is not None and abs(entry.seed) <= _MOST else None
    short = replace(entry, prompt=prompt, seed=seed)
    return tables.Entry(**{name: getattr(short, name) for name in Entry.__dataclass_fields__})


def end_entries(session: Session, job_ids: Sequence[str] | Select[Any], values: Mapping[str, Any]) -> None:
    """Note how jobs ended, where they have entries that do not say so yet."""
    session.execute(
        update(tables.Entry)
        .where(tables.Entry.id.in_(job_ids), tables.Entry.ended_at.is_(None))
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _entry_of(row: tables.Entry) -> Entry:
    return checked(_ENTRY, {name: getattr(row, name) for name in Entry.__dataclass_fields__})
