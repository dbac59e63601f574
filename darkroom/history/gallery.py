"""The pictures that were made: searched, tagged, shown small, removed. Called from worker threads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from darkroom.history.database import Database
from darkroom.history.ledger import MOST_LISTED, Kept
from darkroom.history.tables import Picture, Tag

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

    def search(self, wanted: Search) -> list[Kept]:
        """Pictures, the newest first."""
        with self._database.begin() as session:
            chosen = _narrowed(select(Picture), wanted)
            mark = session.get(Picture, wanted.before) if wanted.before else None
            if mark:
                later = or_(
                    Picture.created_at < mark.created_at,
                    (Picture.created_at == mark.created_at) & (Picture.id < mark.id),
                )
                chosen = chosen.where(later)
            chosen = chosen.order_by(Picture.created_at.desc(), Picture.id.desc())
            found = session.scalars(chosen.limit(min(wanted.limit, MOST_LISTED))).all()
            return _with_tags(session, found)

    def find(self, picture_id: str) -> Kept | None:
        """A picture."""
        with self._database.begin() as session:
            found = session.get(Picture, picture_id)
            return _with_tags(session, [found])[0] if found else None

    def of_job(self, job_id: str) -> list[Kept]:
        """The pictures of a job, in order."""
        with self._database.begin() as session:
            chosen = select(Picture).where(Picture.job_id == job_id).order_by(Picture.place)
            return _with_tags(session, session.scalars(chosen).all())

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
            gone: list[Picture] = []
            if older_than is not None:
                gone += session.scalars(select(Picture).where(Picture.created_at < older_than)).all()
            if beyond_bytes is not None:
                gone += _oldest_beyond(session, beyond_bytes)
            keys = {picture.key: picture for picture in gone}
            for picture in keys.values():
                session.delete(picture)
            return list(keys)


def _oldest_beyond(session: Session, limit: int) -> list[Picture]:
    excess = (session.scalar(select(func.sum(Picture.size))) or 0) - limit
    chosen: list[Picture] = []
    if excess > 0:
        for picture in session.scalars(select(Picture).order_by(Picture.created_at, Picture.id)):
            chosen.append(picture)
            excess -= picture.size
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


def _with_tags(session: Session, found: Sequence[Picture]) -> list[Kept]:
    tags: dict[str, list[str]] = {}
    for tag in session.scalars(select(Tag).where(Tag.picture_id.in_([one.id for one in found])).order_by(Tag.name)):
        tags.setdefault(tag.picture_id, []).append(tag.name)
    names = [name for name in Kept.__dataclass_fields__ if name != "tags"]
    return [Kept(**{name: getattr(one, name) for name in names}, tags=tuple(tags.get(one.id, ()))) for one in found]
