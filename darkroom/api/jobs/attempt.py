"""One request for work while it is served: who asks, under which id, and with which choices made for it.

A route says when it has found a request in order (`admit`). A client that does not want to wait is answered at that
point; its request is kept and served again later, with the choices that were made the first time.
"""

import time
from asyncio import Task
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from darkroom.allowances import EVERYBODY_S, Allowance
from darkroom.api.chores import Chore
from darkroom.api.context import Context
from darkroom.engine.client import Event, JobStatus
from darkroom.errors import UnknownName
from darkroom.options.values import OptionValues

SCOPE: Final = "darkroom.attempt"
"""Where a request's ASGI scope holds its attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What is told of the first picture that a request draws."""

    prompt: str
    seed: int
    width: int
    height: int
    steps: int


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """`deferred`: the client does not wait. `options` and `seeds` are those of the first time a request is served, and
    given where it is served again. `engine_jobs` are what the engine does for it. `drawn` is
    the first of them, `work` is all of them in megapixels times steps, which is `charged` where the `allowance` limits
    it; `images` is how many pictures there are.
    """

    id: str
    kind: str
    owner: str = ""
    began: float = field(default_factory=time.time)
    allowance: Allowance = EVERYBODY_S
    priority: int = 0
    deferred: bool = False
    admitted: bool = False
    options: OptionValues | None = None
    seeds: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    engine_jobs: list[str] = field(default_factory=list)
    chores: list[Chore] = field(default_factory=list)
    drawn: Drawn | None = None
    work: float = 0.0
    charged: bool = False
    images: int | None = None
    interrupted: bool = False
    cancelled: bool = False
    task: Task[None] | None = None

    def interrupt(self, context: Context) -> None:
        """Have it end with the pictures that there are."""
        self.interrupted = True
        for job_id in self.engine_jobs:
            context.engine.interrupt(job_id)
        for chore in self.chores:
            chore.stop.set()

    def skip(self, context: Context) -> None:
        """Have the batch that is drawn end with the pictures that there are, and the next one go on."""
        for job_id in self.engine_jobs:
            context.engine.skip(job_id)

    def cancel(self) -> None:
        """Drop it; nothing comes of it."""
        told, self.cancelled = self.cancelled, True
        if self.task and not told:  # a second time would keep its end from being written down
            self.task.cancel()

    def statuses(self, context: Context) -> list[JobStatus]:
        """What the engine does for it, in order."""
        found = []
        for job_id in self.engine_jobs:
            try:
                found.append(context.engine.status(job_id))
            except UnknownName:
                continue  # ended long ago
        return found


class Admitted(HTTPException):
    """The request is in order and its client does not wait. Whoever serves it ends here."""

    def __init__(self) -> None:
        super().__init__(202)


def find_attempt(request: HTTPConnection) -> Attempt | None:
    """The attempt that a request is; None for one that is not work."""
    attempt = request.scope.get(SCOPE)
    return attempt if isinstance(attempt, Attempt) else None


def options_of(request: HTTPConnection, context: Context) -> OptionValues:
    """The options that count for a request: those of now, or of when it was admitted."""
    attempt = find_attempt(request)
    return attempt.options if attempt and attempt.options else context.options.snapshot()


def drawn_seeds(request: HTTPConnection) -> Mapping[str, Any]:
    """The seeds that were drawn when the request was admitted; none if this is the first time."""
    attempt = find_attempt(request)
    return attempt.seeds if attempt else {}


def is_repeatable(request: HTTPConnection) -> bool:
    """Whether the request may have to be served a second time, and must come to the same then."""
    attempt = find_attempt(request)
    return attempt is not None and (attempt.deferred or bool(attempt.options))


def admit(
    request: HTTPConnection, options: OptionValues, *, seeds: Mapping[str, Any] | None = None, model: str | None = None
) -> None:
    """Say that a request is in order, and what was chosen for it. Raises Admitted where its client does not wait."""
    attempt = find_attempt(request)
    if attempt is None or attempt.admitted:
        return
    attempt.admitted = True
    if attempt.options is None:  # served again, it keeps those of the first time
        attempt.options = options
    attempt.seeds = {**(seeds or {}), **attempt.seeds}
    attempt.model = model
    if attempt.deferred:
        raise Admitted


def note_chore(request: HTTPConnection, chore: Chore) -> None:
    """Remember what is done for a request beside the engine's jobs."""
    attempt = find_attempt(request)
    if attempt:
        attempt.chores.append(chore)


def note_pictures(request: HTTPConnection, event: Event) -> None:
    """Remember how many pictures a request has."""
    attempt = find_attempt(request)
    if attempt:
        attempt.images = (attempt.images or 0) + len(event.pictures)


def note_engine_job(request: HTTPConnection, job_id: str) -> None:
    """Remember what the engine does for a request."""
    attempt = find_attempt(request)
    if attempt:
        attempt.engine_jobs.append(job_id)
        request.app.state.context.own(job_id, attempt.owner)
