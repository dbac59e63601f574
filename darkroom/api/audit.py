"""`/audit`: who asked for what and when. What is removed elsewhere stays here, for as long as the operator keeps it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from darkroom.api.jobs.routes import desk_of
from darkroom.api.owners import EVERYBODY, viewer_of
from darkroom.history.audit import Entry, Wanted
from darkroom.history.rows import MOST_LISTED

router = APIRouter(tags=["jobs"])


class EntryDocument(BaseModel):
    """A request for work. Times are Unix time, seconds."""

    id: str = Field(description="The job's id; the job itself may be gone.")
    owner: str = Field(description="The user or key that asked.")
    at: float = Field(description="When it was asked.")
    kind: str = Field(description="txt2img, img2img, extras, ...")
    state: str = Field(description="How it ended; queued as long as it has not.")
    ended_at: float | None
    model: str | None
    prompt: str = Field(description="The beginning of the prompt.")
    seed: int | None = Field(description="The first picture's.")
    width: int | None
    height: int | None
    steps: int | None
    images: int | None = Field(description="How many pictures it gave.")
    work: float | None = Field(description="Megapixels times steps, of all its pictures.")
    priority: int


class EntryList(BaseModel):
    """A page of entries. `next` is what `before` must be for the following page; null on the last."""

    entries: list[EntryDocument]
    next: str | None = Field(description="The `before` of the next page.")


class EntryQuery(BaseModel):
    """Which entries are listed. What is left out does not matter."""

    owner: str | None = Field(None, description="Only requests of this user or key.")
    kind: str | None = Field(None, description="Only requests of this kind.")
    since: float | None = Field(None, allow_inf_nan=False, description="Asked at this Unix time or later.")
    until: float | None = Field(None, allow_inf_nan=False, description="Asked before this Unix time.")
    before: str | None = Field(None, description="The `next` of the page before.")
    limit: int = Field(50, ge=1, le=MOST_LISTED, description="Most entries of the page.")


@router.get("/audit", operation_id="list_audit")
async def list_audit(request: Request, query: Annotated[EntryQuery, Query()]) -> EntryList:
    """Who asked for what, the newest first. Whoever may not see everybody's work is shown his or her own."""
    viewer = viewer_of(request.scope)
    wanted = Wanted(
        owner=query.owner if viewer == EVERYBODY else viewer,
        kind=query.kind,
        since=query.since,
        until=query.until,
        before=query.before,
        limit=query.limit,
    )
    found = await desk_of(request).do(lambda books: books.audit.search(wanted))
    return EntryList(entries=[_document(entry) for entry in found.rows], next=found.next)


def _document(entry: Entry) -> EntryDocument:
    return EntryDocument(**{name: getattr(entry, name) for name in EntryDocument.model_fields})
