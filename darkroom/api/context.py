"""What the routes of one application share. Knows no route."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from darkroom.api.chores import Chores
from darkroom.api.live import LivePictures
from darkroom.api.openai.pictures import KeptPictures
from darkroom.api.owners import EVERYBODY, may_see, owner_of, priority_of
from darkroom.engine.client import Engine, JobStatus, Standing
from darkroom.extensions import Installed
from darkroom.options.store import Options
from darkroom.scripts.registry import Registry
from darkroom.settings import Settings

WORKERS = 4
"""Requests whose pictures are decoded or encoded at once: more would only take memory and the engine's time."""

WAITERS = 8
"""Requests in whose threads the engine is waited for while it works on finished pictures; they take no time of workers.
"""

_REMEMBERED_OWNERS = 4096

FETCHES = 4
"""Pictures that are fetched by their address at once."""


@dataclass(slots=True)
class Controls:
    """What A1111 remembers between jobs.

    A1111: an interrupt stays visible after the job that it stopped, until the next one begins; one sent while idle too.
    `stops` counts the interrupts since the server began.
    """

    interrupted: bool = False
    skipped: bool = False
    stops: int = 0

    def begin(self) -> None:
        """A job begins."""
        self.interrupted = self.skipped = False


@dataclass(slots=True, kw_only=True)
class Series:
    """The jobs that a script has made: how many batches it will need, as far as is known, and how many are finished."""

    task_id: str
    began: float
    planned: int = 0
    finished: int = 0
    job_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What one user does: nobody else sees or stops it."""

    controls: Controls = field(default_factory=Controls)
    series: list[Series] = field(default_factory=list)
    chores: Chores = field(default_factory=Chores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One application's settings, options and engine, seen by `viewer`, whose work has a `priority`. `owners` says
    whose the engine's jobs are.
    """

    viewer: str = EVERYBODY
    priority: int = 0
    owners: OrderedDict[str, str] = field(default_factory=OrderedDict)
    belongings: dict[str, Belongings] = field(default_factory=dict)

    settings: Settings
    engine: Engine
    options: Options
    controls: Controls = field(default_factory=Controls)
    live: LivePictures = field(default_factory=LivePictures)
    scripts: Registry = field(default_factory=Registry)
    extensions: tuple[Installed, ...] = ()
    series: list[Series] = field(default_factory=list)
    kept: KeptPictures = field(default_factory=KeptPictures)
    chores: Chores = field(default_factory=Chores)
    workers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(WORKERS))
    waiters: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(WAITERS))
    style_files: Lock = field(default_factory=Lock)
    fetches: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(FETCHES))

    def seen_by(self, viewer: str) -> "Context":
        """The same application as somebody else sees it."""
        if viewer == EVERYBODY:
            return self
        own = self.belongings.setdefault(viewer, Belongings(chores=Chores(self.chores.locks)))
        return replace(self, viewer=viewer, controls=own.controls, series=own.series, chores=own.chores)

    @property
    def standing(self) -> Standing:
        """For whom the engine works."""
        return Standing(party=self.viewer, priority=self.priority)

    def own(self, job_id: str, owner: str) -> None:
        """Remember whose a job of the engine is."""
        self.owners[job_id] = owner
        while len(self.owners) > _REMEMBERED_OWNERS:
            self.owners.popitem(last=False)

    def jobs(self) -> Sequence[JobStatus]:
        """The engine's jobs, of those that the viewer may see: live ones in order of submission, then ended ones."""
        jobs = self.engine.jobs()
        if self.viewer == EVERYBODY:
            return jobs
        return [job for job in jobs if may_see(self.viewer, self.owners.get(job.job_id, EVERYBODY))]

    def running(self) -> list[JobStatus]:
        """The jobs that run, in order of submission."""
        return [job for job in self.jobs() if job.state == "running"]

    def queued(self) -> list[JobStatus]:
        """The jobs that wait, in order of submission."""
        return [job for job in self.jobs() if job.state == "queued"]

    def find_series(self, job: JobStatus | None) -> Series | None:
        """The running script that a job belongs to; for no job, the first script that runs."""
        return next((series for series in self.series if job is None or job.job_id in series.job_ids), None)


def get_context(request: Request) -> Context:
    """The context of the application that serves a request, as whoever asks sees it."""
    context = request.app.state.context
    assert isinstance(context, Context)
    seen, priority = context.seen_by(owner_of(request.scope)), priority_of(request.scope)
    return replace(seen, priority=priority) if priority else seen


Shared = Annotated[Context, Depends(get_context)]
