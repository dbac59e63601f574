"""`/jobs/{id}/events`: a job's course as it happens, as Server-Sent Events or over a WebSocket.

An event's id says how far the job had come: `attempt.stage.permille`. A client that comes back with the last one it
saw (`Last-Event-ID`) gets what lies behind it, from this server or another one, also after a restart.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, WebSocket
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect

from darkroom.api.context import Context, Shared
from darkroom.api.jobs.course import get_record, progress_of, show
from darkroom.api.jobs.desk import Desk
from darkroom.api.jobs.routes import desk_of
from darkroom.api.owners import viewer_of
from darkroom.api.running import ClientGoneError, while_connected
from darkroom.errors import DarkroomError
from darkroom.images.codecs import MEDIA_TYPES

router = APIRouter(prefix="/jobs", tags=["jobs"])

LOOK_S = 0.2
"""How often a job is looked at that is at work here."""

FAR_LOOK_S = 1.0
"""How often the book is looked at."""

KEEP_ALIVE_S = 15.0
"""A silent stream says so often that it is alive, for proxies that close silent connections."""

_RESTARTS = 1012
"""A WebSocket's close code: come again."""

_STAGES = {"queued": 0, "running": 1}
_END = 2

Place = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that happened to a job: its name, how far the job had come, and what is told of it."""

    name: str
    place: Place
    data: dict[str, Any]

    @property
    def event_id(self) -> str:
        """What a client sends back."""
        return ".".join(map(str, self.place))


@router.get("/{job_id}/events", operation_id="job_events")
async def events(
    job_id: str,
    request: Request,
    context: Shared,
    previews: Annotated[bool, Query(description="Send live pictures too.")] = False,
    last_event_id: Annotated[str | None, Header(description="The last event that was seen.")] = None,
) -> StreamingResponse:
    """The job's course as Server-Sent Events: queued, started, progress, preview, and at last done, interrupted,
    failed or cancelled with the job's document.
    """
    desk = desk_of(request)
    viewer = viewer_of(request.scope)
    await get_record(desk, context, job_id, viewer)
    course = follow(desk, context, job_id, viewer, previews=previews, after=_read_place(last_event_id))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_as_text(course), media_type="text/event-stream", headers=headers)


@router.websocket("/{job_id}/ws")
async def socket(websocket: WebSocket, job_id: str, previews: bool = False, last_event_id: str | None = None) -> None:
    """The same over a WebSocket: one JSON object `{"id", "event", "data"}` for each event."""
    context: Context = websocket.app.state.context
    desk, viewer = desk_of(websocket), viewer_of(websocket.scope)
    await websocket.accept()
    course = follow(desk, context, job_id, viewer, previews=previews, after=_read_place(last_event_id))
    with suppress(ClientGoneError, WebSocketDisconnect):
        try:
            await while_connected(websocket, _tell(websocket, course))
            await websocket.close(_RESTARTS if desk.stopping.begun else 1000)
        except DarkroomError as error:
            await websocket.close(1008, str(error)[:120])


async def _tell(websocket: WebSocket, course: AsyncIterator[Happening | None]) -> None:
    async for one in course:
        if one:
            await websocket.send_json({"id": one.event_id, "event": one.name, "data": one.data})


async def follow(
    desk: Desk, context: Context, job_id: str, viewer: str, *, previews: bool, after: Place
) -> AsyncIterator[Happening | None]:
    """What happens to a job from a place on; None where nothing has for a while."""
    seen, picture, silent_s = after, 0, 0.0
    while True:
        record = await get_record(desk, context, job_id, viewer)
        attempt = desk.present.get(job_id)
        told = False
        if record.ended:
            document = (await show(desk, context, record)).model_dump()
            yield Happening(name=record.state, place=(record.attempts, _END, 1000), data=document)
            return
        stage = _STAGES[record.state]
        if (record.attempts, stage, 0) > seen:
            seen, told = (record.attempts, stage, 0), True
            name = "started" if stage else "queued"
            yield Happening(name=name, place=seen, data=(await show(desk, context, record)).model_dump())
        if attempt and stage:
            progress = progress_of(attempt, context, time.time())
            place = (record.attempts, stage, int(progress.fraction * 1000))
            if place > seen:
                seen, told = place, True
                yield Happening(
                    name="progress", place=place, data={"progress": progress.fraction, "eta_s": progress.eta_s}
                )
            if previews and progress.job_id:
                number, data = await _preview(context, progress.job_id)
                if data and number != picture:
                    picture, told = number, True
                    yield Happening(name="preview", place=seen, data={"image": data})
        look_s = LOOK_S if attempt else FAR_LOOK_S
        silent_s = 0.0 if told else silent_s + look_s
        if silent_s >= KEEP_ALIVE_S:
            silent_s = 0.0
            yield None
        await desk.stopping.sleep(look_s)
        if desk.stopping.begun:  # who follows comes again, and is told the rest
            return


async def _preview(context: Context, engine_job: str) -> tuple[int, str | None]:
    options = context.options.snapshot()
    kind = options.live_previews_image_format
    number, picture = await context.live.show(context.engine, context.engine.status(engine_job), options, kind)
    return number, f"data:{MEDIA_TYPES[kind]};base64,{picture}" if picture else None


async def _as_text(course: AsyncIterator[Happening | None]) -> AsyncIterator[str]:
    async for one in course:
        if one is None:
            yield ": still here\n\n"
        else:
            yield f"id: {one.event_id}\nevent: {one.name}\ndata: {json.dumps(one.data)}\n\n"


def _read_place(text: str | None) -> Place:
    """Where a client was; the very beginning for anything that is no place."""
    parts = (text or "").split(".")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        return int(parts[0]), int(parts[1]), int(parts[2])
    return -1, -1, -1
