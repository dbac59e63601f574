"""Rows as values: by the page, the newest first; and one that cannot be read any more is in nobody's way.

Knows tables that have an `id`, and a time in some column; not what they hold.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Select, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session

from darkroom.errors import BadRequest
from darkroom.history.database import HistoryDamaged, is_damage, is_undecodable

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = TypeVar("Row")

MOST_LISTED: Final = 500


class RowDamaged(HistoryDamaged):
    """A row that is not what was written there, in a database that is otherwise in order."""

    http_status = 410
    code = "damaged"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} cannot be read any more: the database of jobs is damaged there")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list. `next` is where the following one begins; None on the last. It counts also when the row before
    it is removed meanwhile.
    """

    rows: list[T]
    next: str | None = None


def page(
    session: Session,
    chosen: Select[Any],
    kind: type[Row],
    at: InstrumentedAttribute[float],
    read: Callable[[Row], T],
    *,
    before: str | None,
    limit: int,
) -> Page[T]:
    """Some of the chosen rows, by the time `at`, the newest first, behind the place or row `before`. Those that are not
    what was written there are left out. Raises BadRequest.
    """
    table: Any = kind
    if before is not None:
        time, row_id = _place(session, table, at, before)
        chosen = chosen.where(or_(at < time, (at == time) & (table.id < row_id)))
    newest_first = chosen.with_only_columns(table.id, at).order_by(at.desc(), table.id.desc())
    most = min(limit, MOST_LISTED)
    places = [(row[0], row[1]) for row in session.execute(newest_first.limit(most + 1))]
    found = read_all(session, kind, [row_id for row_id, _ in places[:most]], read)
    last_id, last_time = places[most - 1] if len(places) > most else ("", None)
    return Page(rows=list(found.values()), next=None if last_time is None else f"{last_time!r}~{last_id}")


def _place(session: Session, kind: Any, at: InstrumentedAttribute[float], before: str) -> tuple[float, str]:
    time, mark, row_id = before.partition("~")
    if not mark:
        found = session.scalar(select(at).where(kind.id == before))
        if found is not None:
            return found, before
    try:
        return float(time), row_id
    except ValueError:
        allowed = "the `next` of an earlier page, or the id of something that is there"
        raise BadRequest("before", before, allowed) from None


def read_all(session: Session, kind: type[Row], ids: Iterable[str], read: Callable[[Row], T]) -> dict[str, T]:
    """Rows by their ids, in that order. What is not what was written there is left out, and named in the log."""
    wanted = list(ids)
    table: Any = kind
    try:
        found = {row.id: read(row) for row in session.scalars(select(table).where(table.id.in_(wanted)))}
    except _TROUBLE as error:
        _insist_on_damage(error)
        found = {row_id: value for row_id in wanted if (value := read_one(session, kind, row_id, read)) is not None}
    return {row_id: found[row_id] for row_id in wanted if row_id in found}


def read_one(session: Session, kind: type[Row], row_id: str, read: Callable[[Row], T]) -> T | None:
    """A row; None where there is none, or where it is not what was written there."""

    def get() -> T | None:
        row = session.get(kind, row_id)
        return None if row is None else read(row)

    return spared(get, f"{getattr(kind, '__tablename__', '')} {row_id}")


def find_one(session: Session, kind: type[Row], row_id: str, read: Callable[[Row], T], *, name: str) -> T | None:
    """A row; None where there is none. Raises RowDamaged, with the `name` that people know it by, where it is not what
    was written there, and the database's own error where more than that row is concerned.
    """
    try:
        row = session.get(kind, row_id)
        return None if row is None else read(row)
    except _TROUBLE as error:
        if isinstance(error, SQLAlchemyError) and not is_undecodable(error):
            raise
        log.error("%s %s: cannot be read any more", getattr(kind, "__tablename__", ""), row_id)
        raise RowDamaged(f"{name} {row_id}") from None


def spared(read: Callable[[], T], name: str) -> T | None:
    """What `read` gives; None, and a line in the log, where that is not what was written there."""
    try:
        return read()
    except _TROUBLE as error:
        _insist_on_damage(error)
        log.error("%s: cannot be read any more", name)
        return None


def checked(kind: TypeAdapter[T], values: Mapping[str, Any]) -> T:
    """A row's columns as a value: SQLite keeps a number's place for any text. Raises HistoryDamaged."""
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        wrong = ", ".join(str(one["loc"][0]) for one in error.errors() if one["loc"])
        raise HistoryDamaged(f"the database of jobs is damaged: {wrong} of a row") from None


_TROUBLE: Final = (SQLAlchemyError, JSONDecodeError, UnicodeDecodeError, HistoryDamaged)


def _insist_on_damage(error: Exception) -> None:
    """What concerns the whole database is not a row's affair."""
    if isinstance(error, SQLAlchemyError) and not is_damage(error):
        raise error
