"""An engine without networks: every picture is one plain colour that follows from its seed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from darkroom.engine.client import FINAL, Event, Finished, JobStatus, State
from darkroom.errors import Busy, DarkroomError, UnknownName
from darkroom.jobs.spec import CheckpointInfo, JobSpec, Picture

SHA = "76fc16883309a3dcd19b1f5a67ac0d4c2125128b3ec5373b02d9613a80ffa30a"

MODELS = (
    CheckpointInfo(key="small-a", filename="/models/small-a.safetensors", path="small-a.safetensors", sha256=SHA),
    CheckpointInfo(
        key="sub/bar", filename="/models/sub/bar.safetensors", path="sub/bar.safetensors", old_hash="e3b0c442"
    ),
)


def colour(seed: int) -> tuple[int, int, int]:
    return seed % 251, seed // 251 % 241, 77


class FakeEngine:
    """Finishes jobs at once, or, while `held`, when it is told to."""

    def __init__(self, models: Sequence[CheckpointInfo] = MODELS, *, held: bool = False) -> None:
        self.models = list(models)
        self.held = held
        self.capacity = 100
        self.failure: DarkroomError | None = None
        self.crash: Exception | None = None
        self.closed = False
        self.refreshed = 0
        self.is_ready = True
        self.live_picture: Picture | None = None
        self.previews = 0
        self.specs: list[JobSpec] = []
        self._events: dict[str, Event] = {}

    def submit(self, spec: JobSpec) -> str:
        if self.crash:
            raise self.crash
        if len([job for job in self.jobs() if job.state not in FINAL]) >= self.capacity:
            raise Busy("the queue is full")
        job_id = f"job{len(self._events)}"
        now = time.time()
        state: State = "running"
        status = JobStatus(job_id=job_id, spec=spec, state=state, submitted_at=now, started_at=now, steps=spec.steps)
        self.specs.append(spec)
        self._events[job_id] = Event(status=status)
        if not self.held:
            self.finish(job_id)
        return job_id

    def finish(self, job_id: str, state: State = "done", pictures: int | None = None) -> None:
        status = self._events[job_id].status
        count = len(status.spec.seeds) if pictures is None else pictures
        finished = tuple(Finished(index=i, picture=self._draw(status.spec, i)) for i in range(count))
        if self.failure:
            state, finished = "failed", ()
        status = replace(status, state=state, ended_at=time.time(), fraction=1.0)
        self._events[job_id] = Event(status=status, pictures=finished, error=self.failure)

    def set(self, job_id: str, *, step: int = 0, iteration: int = 0, state: State = "running") -> None:
        status = replace(self._events[job_id].status, step=step, iteration=iteration, state=state)
        self._events[job_id] = Event(status=status)

    def _draw(self, spec: JobSpec, index: int) -> Picture:
        height, width = spec.latent_size
        picture = np.empty((height * 8, width * 8, 3), dtype=np.uint8)
        picture[:] = colour(spec.seeds[index])
        return picture

    async def events(self, job_id: str) -> AsyncIterator[Event]:
        yield self._events[job_id]
        while self._events[job_id].status.state not in FINAL:  # noqa: ASYNC110  the test's thread ends it
            await asyncio.sleep(0.002)
        yield self._events[job_id]

    def status(self, job_id: str) -> JobStatus:
        if job_id not in self._events:
            raise UnknownName("job", job_id, list(self._events))
        return self._events[job_id].status

    def jobs(self) -> Sequence[JobStatus]:
        statuses = [event.status for event in self._events.values()]
        return sorted(statuses, key=lambda status: status.state in FINAL)

    def interrupt(self, job_id: str) -> None:
        status = self._events[job_id].status
        if status.state not in FINAL:
            self._events[job_id] = Event(status=replace(status, interrupted=True))
            self.finish(job_id, "interrupted", pictures=min(1, len(status.spec.seeds)))

    def skip(self, job_id: str) -> None:
        status = self._events[job_id].status
        if status.state not in FINAL:
            self._events[job_id] = Event(status=replace(status, skipped=True))

    def cancel(self, job_id: str) -> None:
        if self._events[job_id].status.state not in FINAL:
            self.finish(job_id, "cancelled", pictures=0)

    async def preview(self, job_id: str) -> Picture | None:
        self.previews += 1
        return self.live_picture

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return tuple(self.models)

    def refresh(self) -> None:
        self.refreshed += 1

    def ready(self) -> bool:
        return self.is_ready

    def close(self) -> None:
        self.closed = True
