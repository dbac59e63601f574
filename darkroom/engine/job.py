"""A job in the engine: its state, its lanes, and the people who watch it. Changed by the device thread alone."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from threading import Lock

import numpy as np

from darkroom.engine.client import ANYBODY, FINAL, Event, Finished, JobStatus, Standing, State
from darkroom.engine.lane import Lane
from darkroom.errors import DarkroomError
from darkroom.jobs.retouching import RetouchSpec, Spec
from darkroom.jobs.spec import Picture

log = logging.getLogger(__name__)


class Job:
    """One submitted request. `lanes` are the pictures of the iteration that is running.

    The device thread publishes events; other threads read `status`, which is replaced whole, and subscribe. `request`
    and `trace` are what the log calls whom the job is for; `ended_with` is told how the job ended.
    """

    def __init__(
        self,
        job_id: str,
        spec: Spec,
        *,
        standing: Standing = ANYBODY,
        request: str = "",
        trace: str = "",
        ended_with: Callable[[JobStatus], None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self.standing = standing
        self.noted = {"job_id": request or job_id, "engine_job_id": job_id, "trace_id": trace}
        self._ended_with = ended_with
        self.status = JobStatus(job_id=job_id, spec=spec, state="queued", submitted_at=time.time())
        self.lanes: list[Lane] = []
        self.pictures: dict[int, Finished] = {}
        self._last = Event(status=self.status)
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Event]]] = []
        self._lock = Lock()

    @property
    def job_id(self) -> str:
        return self.status.job_id

    @property
    def last_event(self) -> Event:
        """The newest event; of an ended job the one with its pictures."""
        return self._last

    @property
    def ended(self) -> bool:
        return self.status.state in FINAL

    def start_iteration(self, lanes: Iterable[Lane]) -> None:
        """Begin the next batch of pictures."""
        first = self.status.state == "queued"
        self.lanes = list(lanes)
        if first:
            self.status = replace(self.status, state="running", started_at=time.time())
        else:
            self.status = replace(self.status, iteration=self.status.iteration + 1)
        self.report()

    def mark(self, *, skipped: bool = False, interrupted: bool = False) -> None:
        """Note that sampling was asked to stop. `skipped` is about the present iteration only."""
        self.status = replace(
            self.status, skipped=self.status.skipped or skipped, interrupted=self.status.interrupted or interrupted
        )

    def collect(self) -> bool:
        """Take over the pictures of finished lanes; True when the whole iteration is finished."""
        for lane in self.lanes:
            if lane.picture is not None:
                notes, asides = tuple(lane.notes.items()), tuple(lane.asides.items())
                done = Finished(index=lane.index, picture=lane.picture, notes=notes, asides=asides)
                self.pictures[lane.index] = done
        return all(lane.picture is not None for lane in self.lanes)

    def last_finished(self) -> list[Picture]:
        """The pictures of the last iteration that is finished."""
        last = max(self.pictures, default=-1) // self.spec.batch_size
        return [one.picture for index, one in sorted(self.pictures.items()) if index // self.spec.batch_size == last]

    def report(self) -> None:
        """Publish where the job stands."""
        slowest = min(self.lanes, key=lambda lane: lane.passed)
        passes = self.spec.passes
        mean = sum(lane.passed for lane in self.lanes) / len(self.lanes)
        done = sum(1.0 if lane.picture is not None else lane.passed / passes for lane in self.lanes)
        planned = self.spec.batch_size * self.spec.n_iter
        before = self.status.iteration * self.spec.batch_size
        self.status = replace(
            self.status,
            part=slowest.part,
            step=slowest.step,
            steps=slowest.steps,
            worked=round((mean - slowest.part) * max(lane.steps for lane in self.lanes)),
            fraction=min(1.0, (before + done) / planned),
        )
        self._publish(Event(status=self.status))

    def end(self, state: State, error: DarkroomError | None = None) -> None:
        """Reach a final state; the pictures so far go with the last event unless the job failed or was cancelled."""
        for lane in self.lanes:
            lane.close()
        kept = sorted(self.pictures.items()) if state in ("done", "interrupted") else []
        fraction = 1.0 if state == "done" else self.status.fraction
        self.status = replace(self.status, state=state, ended_at=time.time(), fraction=fraction)
        self.lanes, self.pictures = [], {}
        pictures = tuple(finished for _, finished in kept)
        self._ended_with(self.status)
        self._publish(Event(status=self.status, pictures=pictures, error=error))

    def forget_result(self) -> None:
        """Let go of the last event's pictures, and of those that the job started from; the status stays."""
        self.spec = _without_pictures(self.spec)
        self.status = replace(self.status, spec=self.spec)
        with self._lock:
            self._last = replace(self._last, status=self.status, pictures=())

    async def events(self) -> AsyncIterator[Event]:
        """From the present status to the final one."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        watcher = (asyncio.get_running_loop(), queue)
        with self._lock:
            queue.put_nowait(self._last)
            self._watchers.append(watcher)
        try:
            while True:
                event = await queue.get()
                yield event
                if event.status.state in FINAL:
                    return
        finally:
            with self._lock:
                self._watchers.remove(watcher)

    def _publish(self, event: Event) -> None:
        with self._lock:
            self._last = event
            for loop, queue in self._watchers:
                try:
                    loop.call_soon_threadsafe(queue.put_nowait, event)
                except RuntimeError:  # the watcher's event loop was closed; nobody listens there any more
                    log.debug("job %s: a watcher is gone", self.job_id)


def _without_pictures(spec: Spec) -> Spec:
    """What is remembered of what was asked for."""
    nothing = np.empty((0, 0, 3), np.uint8)
    if isinstance(spec, RetouchSpec):
        return replace(spec, picture=nothing)
    hires = replace(spec.hires, picture=nothing) if spec.hires and spec.hires.picture is not None else spec.hires
    return replace(spec, init=None, hires=hires)
