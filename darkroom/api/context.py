"""What the routes of one application share. Knows no route."""

from dataclasses import dataclass, field
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from darkroom.engine.client import Engine, JobStatus
from darkroom.settings import Options, Settings

WORKERS = 4
"""Requests whose pictures are decoded or encoded at once: more would only take memory and the engine's time."""


@dataclass(slots=True)
class Controls:
    """What A1111 remembers between jobs.

    A1111: an interrupt stays visible after the job that it stopped, until the next one begins; one sent while idle too.
    """

    interrupted: bool = False
    skipped: bool = False

    def begin(self) -> None:
        """A job begins."""
        self.interrupted = self.skipped = False


@dataclass(slots=True)
class Preview:
    """The last live picture that was encoded, so that polling does not decode it again."""

    key: tuple[str, int, int] = ("", 0, 0)
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One application's settings, options and engine."""

    settings: Settings
    engine: Engine
    options: Options
    controls: Controls = field(default_factory=Controls)
    preview: Preview = field(default_factory=Preview)
    workers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(WORKERS))

    def running(self) -> list[JobStatus]:
        """The jobs that run, in order of submission."""
        return [job for job in self.engine.jobs() if job.state == "running"]

    def queued(self) -> list[JobStatus]:
        """The jobs that wait, in order of submission."""
        return [job for job in self.engine.jobs() if job.state == "queued"]


def get_context(request: Request) -> Context:
    """The context of the application that serves a request."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


Shared = Annotated[Context, Depends(get_context)]
