"""An engine without networks: every picture is one plain colour that follows from its seed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from darkroom.engine.client import FINAL, DeviceMemory, Event, Finished, JobStatus, Preview, State
from darkroom.errors import Busy, DarkroomError, UnknownName
from darkroom.jobs.networks import AdapterInfo, EmbeddingInfo, HypernetworkInfo, VaeInfo
from darkroom.jobs.spec import CheckpointInfo, Emphasis, JobSpec, Picture

SHA = "76fc16883309a3dcd19b1f5a67ac0d4c2125128b3ec5373b02d9613a80ffa30a"

MODELS = (
    CheckpointInfo(key="small-a", filename="/models/small-a.safetensors", path="small-a.safetensors", sha256=SHA),
    CheckpointInfo(
        key="sub/bar", filename="/models/sub/bar.safetensors", path="sub/bar.safetensors", old_hash="e3b0c442"
    ),
)


def colour(seed: int) -> tuple[int, int, int]:
    return seed % 251, seed // 251 % 241, 77


@dataclass
class Shelf:
    """What lies beside the checkpoints; `hashes` by name."""

    adapters: list[AdapterInfo] = field(default_factory=list)
    autoencoders: list[VaeInfo] = field(default_factory=list)
    hypernetworks: list[HypernetworkInfo] = field(default_factory=list)
    embeddings: list[EmbeddingInfo] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


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
        self.previews: list[Preview] = []
        self.loaded: list[str] = []
        self.device_memory: DeviceMemory | None = None
        self.shelf = Shelf()
        self.specs: list[JobSpec] = []
        self.notes: tuple[tuple[str, object], ...] = ()
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
        drawn = [self._draw(status.spec, index) for index in range(count)]
        finished = tuple(Finished(index=i, picture=picture, notes=self.notes) for i, picture in enumerate(drawn))
        if self.failure:
            state, finished = "failed", ()
        status = replace(status, state=state, ended_at=time.time(), fraction=1.0)
        self._events[job_id] = Event(status=status, pictures=finished, error=self.failure)

    def set(self, job_id: str, *, step: int = 0, part: int = 0, iteration: int = 0, state: State = "running") -> None:
        status = replace(self._events[job_id].status, step=step, part=part, iteration=iteration, state=state)
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

    async def preview(self, job_id: str, preview: Preview) -> Sequence[Picture]:
        self.previews.append(preview)
        return [] if self.live_picture is None else [self.live_picture] * (4 if preview.whole_batch else 1)

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return tuple(self.models)

    def refresh(self) -> None:
        self.refreshed += 1

    def adapters(self) -> Sequence[AdapterInfo]:
        return tuple(self.shelf.adapters)

    def find_adapter(self, name: str) -> AdapterInfo | None:
        return next((info for info in self.shelf.adapters if name in (info.name, info.alias)), None)

    def adapter_hash(self, name: str) -> str | None:
        return self.shelf.hashes.get(name)

    def autoencoders(self) -> Sequence[VaeInfo]:
        return tuple(self.shelf.autoencoders)

    def vae_hash(self, name: str) -> str | None:
        return self.shelf.hashes.get(name)

    def hypernetworks(self) -> Sequence[HypernetworkInfo]:
        return tuple(self.shelf.hypernetworks)

    def embeddings(self) -> Sequence[EmbeddingInfo]:
        return tuple(self.shelf.embeddings)

    def find_embeddings(
        self, width: int | None, texts: Sequence[str], emphasis: Emphasis, comma_backtrack: int
    ) -> Sequence[EmbeddingInfo]:
        fitting = [info for info in self.shelf.embeddings if width in (None, info.width)]
        return [info for info in fitting if any(info.name in text for text in texts)]

    async def unload(self) -> None:
        self.loaded.clear()

    async def load(self, checkpoint: str) -> None:
        self.loaded.append(checkpoint)

    def memory(self) -> DeviceMemory | None:
        return self.device_memory

    def ready(self) -> bool:
        return self.is_ready

    def close(self) -> None:
        self.closed = True
