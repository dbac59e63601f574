"""The pictures that were made: searched, tagged, shown small, removed. Called from worker threads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from darkroom.history.database import Database
from darkroom.history.ledger import Kept
from darkroom.history.rows import Page, checked, find_one, page, read_all, spared
from darkroom.history.tables import Picture, Tag

_COLUMNS: Final = tuple(name for name in Kept.__dataclass_fields__ if name != "tags")
_KEPT: Final = TypeAdapter(Kept)

_AT_ONCE: Final = 10_000
"""Rows of a statement: databases bound how many values one may have."""

MAX_TAGS = 32
MAX_TAG_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which pictures are looked for: every word of `text` is in the generation text, and all else is as said; None
    leaves a matter open. Times are `time.time()` seconds.
    """

    owner: str | None = None
    text: str = ""
    model: str | None = None
    seed: int | None = None
    tag: str | None = None
    job_id: str | None = None
    since: float | None = None
    until: float | None = None
    before: str | None = None
    limit: int = 50


class Gallery:
    """Pictures in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def search(self, wanted: Search) -> Page[Kept]:
        """Pictures, the newest first; without those that cannot be read any more. Raises BadRequest."""
        with self._database.begin() as session:
            chosen = _narrowed(select(Picture), wanted)
            at = Picture.created_at
            found = page(session, chosen, Picture, at, _kept, before=wanted.before, limit=wanted.limit)
            return replace(found, rows=_with_tags(session, found.rows))

    def find(self, picture_id: str) -> Kept | None:
        """A picture. Raises RowDamaged."""
        with self._database.begin() as session:
            found = find_one(session, Picture, picture_id, _kept, name="picture")
            return _with_tags(session, [found])[0] if found else None

    def of_job(self, job_id: str) -> list[Kept]:
        """The pictures of a job, in order; without those that cannot be read any more."""
        with self._database.begin() as session:
            ids = session.scalars(select(Picture.id).where(Picture.job_id == job_id).order_by(Picture.place))
            return _with_tags(session, list(read_all(session, Picture, ids, _kept).values()))

    def tag(self, picture_id: str, names: Sequence[str]) -> None:
        """Have a picture carry exactly these tags."""
        with self._database.begin() as session:
            session.execute(delete(Tag).where(Tag.picture_id == picture_id))
            session.add_all(Tag(picture_id=picture_id, name=name) for name in dict.fromkeys(names))

    def remove(self, picture_id: str) -> str | None:
        """Forget a picture; the key of the file that may go now. None: no such picture."""
        with self._database.begin() as session:
            found = session.get(Picture, picture_id)
            if found is None:
                return None
            session.delete(found)
            return found.key

    def drop(self, *, older_than: float | None = None, beyond_bytes: int | None = None) -> list[str]:
        """Forget pictures that are too old, and the oldest ones of too many bytes; the keys of their files."""
        with self._database.begin() as session:
            gone: dict[str, str] = {}
            if older_than is not None:
                old = select(Picture.id, Picture.key).where(Picture.created_at < older_than)
                gone |= {row[0]: row[1] for row in session.execute(old)}
            if beyond_bytes is not None:
                gone |= _oldest_beyond(session, beyond_bytes)
            ids = list(gone)
            for start in range(0, len(ids), _AT_ONCE):
                session.execute(delete(Picture).where(Picture.id.in_(ids[start : start + _AT_ONCE])))
            return list(gone.values())


def _oldest_beyond(session: Session, limit: int) -> dict[str, str]:
    """The keys of the oldest pictures' files, by the pictures' ids."""
    excess = (session.scalar(select(func.sum(Picture.size))) or 0) - limit
    chosen: dict[str, str] = {}
    if excess > 0:
        oldest_first = select(Picture.id, Picture.key, Picture.size).order_by(Picture.created_at, Picture.id)
        for picture_id, key, size in session.execute(oldest_first):
            chosen[picture_id] = key
            excess -= size
            if excess <= 0:
                break
    return chosen


def _narrowed(chosen: Select[Picture], wanted: Search) -> Select[Picture]:
    conditions: list[Any] = [Picture.infotext.icontains(word, autoescape=True) for word in wanted.text.split()]
    if wanted.owner is not None:
        conditions.append(Picture.owner == wanted.owner)
    if wanted.model is not None:
        named = Picture.model.icontains(wanted.model, autoescape=True)
        conditions.append(or_(named, Picture.model_hash == wanted.model))
    if wanted.seed is not None:
        conditions.append(Picture.seed == wanted.seed)
    if wanted.job_id is not None:
        conditions.append(Picture.job_id == wanted.job_id)
    if wanted.since is not None:
        conditions.append(Picture.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(Picture.created_at < wanted.until)
    if wanted.tag is not None:
        conditions.append(Picture.id.in_(select(Tag.picture_id).where(Tag.name == wanted.tag)))
    return chosen.where(*conditions)


def _kept(found: Picture) -> Kept:
    """A row as a value, without its tags. Raises HistoryDamaged."""
    return checked(_KEPT, {name: getattr(found, name) for name in _COLUMNS})


def _with_tags(session: Session, found: Sequence[Kept]) -> list[Kept]:
    ids = [one.id for one in found]

    def read() -> dict[str, list[str]]:
        tags: dict[str, list[str]] = {}
        for tag in session.scalars(select(Tag).where(Tag.picture_id.in_(ids)).order_by(Tag.name)):
            tags.setdefault(tag.picture_id, []).append(tag.name)
        return tags

    tags = spared(read, "tags") or {}
    return [replace(one, tags=tuple(tags.get(one.id, ()))) for one in found]
