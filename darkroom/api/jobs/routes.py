"""`/jobs`: what was asked of this server, how far it has come, what came of it, and stopping it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from darkroom.api.context import Context, Shared
from darkroom.api.jobs.attempt import Attempt
from darkroom.api.jobs.course import get_record, passing_record, show
from darkroom.api.jobs.desk import Desk, rebuilt
from darkroom.api.jobs.documents import JobDocument
from darkroom.api.jobs.intake import read_priority, root_of
from darkroom.api.jobs.keeping import remove_files
from darkroom.api.jobs.promising import promise_again
from darkroom.api.limits import limits_of
from darkroom.api.owners import EVERYBODY, allowance_of, may_see, owner_of, viewer_of
from darkroom.api.scopes import scope_of
from darkroom.errors import DarkroomError, MissingScope
from darkroom.history.ledger import Record, State, Wanted, Wish, new_id
from darkroom.history.rows import MOST_LISTED

router = APIRouter(prefix="/jobs", tags=["jobs"])


class NotFinished(DarkroomError):
    """Something is asked of a job that only an ended one has."""

    http_status = 409
    code = "not_finished"


class JobList(BaseModel):
    """A page of jobs. `next` is what `before` must be for the following page; null on the last."""

    jobs: list[JobDocument]
    next: str | None = Field(description="The `before` of the next page.")


class JobQuery(BaseModel):
    """Which jobs are listed. What is left out does not matter."""

    state: list[State] = Field([], description="Only jobs in these states.")
    kind: str | None = Field(None, description="Only jobs of this kind.")
    owner: str | None = Field(None, description="Only jobs of this user, for who may see them all.")
    model: str | None = Field(None, description="Only jobs whose checkpoint's name holds this.")
    before: str | None = Field(None, description="Only what is behind this: the `next` of the page before, or a job.")
    limit: int = Field(50, ge=1, le=MOST_LISTED, description="Most jobs of the page.")
    pictures: bool = Field(False, description="Tell the pictures of ended jobs too.")


@router.get("", operation_id="list_jobs")
async def list_jobs(request: Request, context: Shared, query: Annotated[JobQuery, Query()]) -> JobList:
    """Jobs, the last submitted first. Of those that a client waited for, the ones that were kept."""
    desk, viewer = desk_of(request), viewer_of(request.scope)
    wanted = Wanted(
        owner=viewer if viewer != EVERYBODY else query.owner,
        states=tuple(query.state),
        kind=query.kind,
        model=query.model,
        before=query.before,
        limit=query.limit,
    )
    found = await desk.do(lambda books: books.ledger.list_jobs(wanted))
    passing = [] if query.before else _passing(desk, context, viewer, wanted, {record.id for record in found.rows})
    page = [await show(desk, context, record, pictures=query.pictures) for record in (*passing, *found.rows)]
    return JobList(jobs=page, next=found.next)


def _passing(desk: Desk, context: Context, viewer: str, wanted: Wanted, known: set[str]) -> list[Record]:
    """The requests that somebody waits for now."""
    found = [
        passing_record(attempt, context)
        for attempt in desk.present.values()
        if attempt.id not in known
        and attempt.engine_jobs
        and may_see(viewer, attempt.owner)
        and wanted.owner in (None, attempt.owner)
    ]
    return [
        record
        for record in found
        if (not wanted.states or record.state in wanted.states)
        and wanted.kind in (None, record.kind)
        and (wanted.model is None or wanted.model in (record.model or ""))
    ]


@router.get("/{job_id}", operation_id="get_job")
async def get_job(job_id: str, request: Request, context: Shared) -> JobDocument:
    """One job."""
    desk = desk_of(request)
    return await show(desk, context, await get_record(desk, context, job_id, viewer_of(request.scope)))


@router.get("/{job_id}/result", operation_id="get_job_result", response_class=Response)
async def get_result(
    job_id: str,
    request: Request,
    context: Shared,
    response: Annotated[
        str, Query(pattern="^(base64|url)$", description="Pictures in the answer, or their addresses.")
    ] = "base64",
) -> Response:
    """The very answer that a client would have had that waited. 409 as long as there is none."""
    desk = desk_of(request)
    record = await get_record(desk, context, job_id, viewer_of(request.scope))
    root, linked = root_of(request.scope), response == "url"
    body, answered = await desk.do(lambda books: rebuilt(books, job_id, root, desk.settings, linked=linked))
    if answered is None:
        raise NotFinished(record.error or f"the job is {record.state}")
    return Response(body, answered.status, {**answered.headers, "X-Job-Id": job_id})


@router.get("/{job_id}/request", operation_id="get_job_request", response_class=Response)
async def get_request(job_id: str, request: Request, context: Shared) -> Response:
    """What was asked, as it was sent; `X-Darkroom-Path` says of which route."""
    desk = desk_of(request)
    await get_record(desk, context, job_id, viewer_of(request.scope))
    asked = await desk.do(lambda books: books.ledger.request_of(job_id))
    if asked is None:
        raise NotFinished("the request is kept once it is answered")
    headers = {"X-Darkroom-Path": asked.path, "X-Darkroom-Query": asked.query}
    return Response(asked.body, media_type=asked.content_type or "application/json", headers=headers)


@router.post("/{job_id}/rerun", operation_id="rerun_job", status_code=202)
async def rerun_job(job_id: str, request: Request, context: Shared) -> JobDocument:
    """Do the same again: the same request, options and seeds, as a new job. Counts as a request for work."""
    desk, allowance = desk_of(request), allowance_of(request.scope)
    record = await get_record(desk, context, job_id, viewer_of(request.scope))
    asked = await desk.do(lambda books: books.ledger.request_of(job_id))
    if asked is None:
        raise NotFinished("the request is kept once it is answered")
    if not allowance.allows(scope_of("POST", asked.path)):
        raise MissingScope(f"to ask {asked.path} again needs another scope than you have")
    owner = owner_of(request.scope) or record.owner
    priority = read_priority(request.headers.get("x-darkroom-priority", ""), allowance)
    attempt = Attempt(
        id=new_id(), kind=record.kind, owner=owner, allowance=allowance, priority=priority, model=record.model
    )
    again = await promise_again(desk, limits_of(request), attempt, asked, job_id)
    return await show(desk, context, again)


@router.delete("/{job_id}", operation_id="cancel_job")
async def cancel_job(
    job_id: str,
    request: Request,
    context: Shared,
    forget: Annotated[bool, Query(description="Remove an ended job with its pictures.")] = False,
) -> JobDocument:
    """Stop a job that waits or is at work; nothing comes of it. An ended one stays as it is, unless it is forgotten."""
    desk = desk_of(request)
    record = await get_record(desk, context, job_id, viewer_of(request.scope))
    if record.ended and forget:
        document = await show(desk, context, record)
        await desk.do(lambda books: remove_files(books.files, books.ledger.remove(job_id) or []))
        return document
    if not record.ended:
        await _wish(desk, job_id, "cancel")
        attempt = desk.present.get(job_id)
        if attempt:
            attempt.cancel()
    return await _again(desk, context, job_id, request)


@router.post("/{job_id}/interrupt", operation_id="interrupt_job")
async def interrupt_job(job_id: str, request: Request, context: Shared) -> JobDocument:
    """Stop a job; the pictures so far are its result."""
    desk = desk_of(request)
    record = await get_record(desk, context, job_id, viewer_of(request.scope))
    if not record.ended:
        await _wish(desk, job_id, "interrupt")
        attempt = desk.present.get(job_id)
        if attempt:
            attempt.interrupt(context)
    return await _again(desk, context, job_id, request)


@router.post("/{job_id}/skip", operation_id="skip_batch")
async def skip_batch(job_id: str, request: Request, context: Shared) -> JobDocument:
    """Stop the batch that the job draws now, keep its pictures so far, and go on with the next batch."""
    desk = desk_of(request)
    await get_record(desk, context, job_id, viewer_of(request.scope))
    attempt = desk.present.get(job_id)
    if attempt:
        attempt.skip(context)
    return await _again(desk, context, job_id, request)


async def _wish(desk: Desk, job_id: str, wish: Wish) -> None:
    await desk.do(lambda books: books.ledger.wish(job_id, wish))


async def _again(desk: Desk, context: Context, job_id: str, request: Request) -> JobDocument:
    return await show(desk, context, await get_record(desk, context, job_id, viewer_of(request.scope)))


def desk_of(request: HTTPConnection) -> Desk:
    """The application's desk."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk), "the application has a desk"
    return desk
