"""What a gateway sees of an engine: submit, events, interrupt, skip, cancel. No torch here.

The engine in this process and an engine elsewhere offer the same protocol.

    queued -> running -> {done, interrupted, failed, cancelled};  queued -> cancelled
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from darkroom.errors import DarkroomError
from darkroom.jobs.spec import CheckpointInfo, JobSpec, Picture

State = Literal["queued", "running", "done", "interrupted", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"done", "interrupted", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One picture of a job: its place in the job (`0 .. batch_size * n_iter - 1`) and its pixels."""

    index: int
    picture: Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job at one moment. `fraction` is 0..1 over all its pictures; times are `time.time()` seconds; `step` counts
    from 0.
    """

    job_id: str
    spec: JobSpec
    state: State
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    iteration: int = 0
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    skipped: bool = False
    interrupted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job. The last event of a stream has a final state.

    `pictures` are set on the last event of a done or interrupted job, `error` on that of a failed one.
    """

    status: JobStatus
    pictures: tuple[Finished, ...] = ()
    error: DarkroomError | None = None


class Engine(Protocol):
    """Hosts jobs. Every method may be called from any thread or event loop and returns at once, unless it is async."""

    def submit(self, spec: JobSpec) -> str:
        """Accept a job and give its id. Raises Busy when the queue is full, UnknownName for a checkpoint that is
        gone.
        """

    def events(self, job_id: str) -> AsyncIterator[Event]:
        """The job's events from now on, beginning with its present status, ending with its final one."""

    def status(self, job_id: str) -> JobStatus:
        """One job. Raises UnknownName."""

    def jobs(self) -> Sequence[JobStatus]:
        """Live jobs in order of submission, then the last few ended ones."""

    def interrupt(self, job_id: str) -> None:
        """Stop sampling; the pictures so far are the result. No effect on an ended job."""

    def skip(self, job_id: str) -> None:
        """As interrupt, but only for the batch that is running; the next one goes on."""

    def cancel(self, job_id: str) -> None:
        """Drop the job; nothing comes of it. No effect on an ended job."""

    async def preview(self, job_id: str) -> Picture | None:
        """The present state of the job's first running picture, or None."""

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """What can be loaded, the embedded model only if there is nothing else."""

    def refresh(self) -> None:
        """Look at the models folder again."""

    def ready(self) -> bool:
        """True once the default checkpoint is loaded and warm."""

    def close(self) -> None:
        """Cancel everything and stop the device thread."""


async def result(engine: Engine, job_id: str) -> Event:
    """Wait for the job's last event. Raises the job's error if it failed."""
    last: Event | None = None
    async for event in engine.events(job_id):
        last = event
    assert last is not None, "a stream of events is never empty"
    if last.error is not None:
        raise last.error
    return last
