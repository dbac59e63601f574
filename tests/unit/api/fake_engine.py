"""An engine without networks: every picture is one plain colour that follows from its seed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event as Flag

import numpy as np

from darkroom.engine.client import (
    ANYBODY,
    FINAL,
    DeviceMemory,
    EngineStats,
    Event,
    Finished,
    JobStatus,
    Preview,
    Standing,
    State,
)
from darkroom.errors import Busy, DarkroomError, UnknownName
from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.merging import MergeOrder, Report, Stage
from darkroom.jobs.networks import (
    AdapterInfo,
    EmbeddingInfo,
    FaceRestorerInfo,
    HypernetworkInfo,
    UpscalerInfo,
    VaeInfo,
)
from darkroom.jobs.programs import BEFORE_FACES
from darkroom.jobs.retouching import Enlargement, RetouchSpec, Spec
from darkroom.jobs.spec import CheckpointInfo, Emphasis, JobSpec, Picture

SHA = "76fc16883309a3dcd19b1f5a67ac0d4c2125128b3ec5373b02d9613a80ffa30a"

MODELS = (
    CheckpointInfo(key="small-a", filename="/models/small-a.safetensors", path="small-a.safetensors", sha256=SHA),
    CheckpointInfo(
        key="sub/bar", filename="/models/sub/bar.safetensors", path="sub/bar.safetensors", old_hash="e3b0c442"
    ),
)


TWICE = UpscalerInfo(name="Twice", family="ESRGAN", filename="/models/ESRGAN/Twice.pth", wanted="", scale=2.0)
ABSENT = UpscalerInfo(
    name="R-ESRGAN 4x+",
    family="RealESRGAN",
    filename=None,
    wanted="/models/RealESRGAN/RealESRGAN_x4plus.pth",
    address="https://example.com/RealESRGAN_x4plus.pth",
)
NO_RESTORERS = (
    FaceRestorerInfo(name="CodeFormer", filename=None, wanted="/models/Codeformer/codeformer-v0.1.0.pth"),
    FaceRestorerInfo(name="GFPGAN", filename=None, wanted="/models/GFPGAN/GFPGANv1.4.pth"),
)


def _count(spec: Spec) -> int:
    return len(spec.seeds) if isinstance(spec, JobSpec) else 1


def colour(seed: int) -> tuple[int, int, int]:
    return seed % 251, seed // 251 % 241, 77


@dataclass
class Shelf:
    """What lies beside the checkpoints; `hashes` by name."""

    adapters: list[AdapterInfo] = field(default_factory=list)
    autoencoders: list[VaeInfo] = field(default_factory=list)
    hypernetworks: list[HypernetworkInfo] = field(default_factory=list)
    embeddings: list[EmbeddingInfo] = field(default_factory=list)
    upscalers: list[UpscalerInfo] = field(default_factory=list)
    face_restorers: list[FaceRestorerInfo] = field(default_factory=lambda: list(NO_RESTORERS))
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
        self.hidden: bool | None = None
        self.is_ready = True
        self.live_picture: Picture | None = None
        self.previews: list[Preview] = []
        self.loaded: list[str] = []
        self.device_memory: DeviceMemory | None = None
        self.counted = EngineStats()
        self.shelf = Shelf()
        self.specs: list[JobSpec] = []
        self.standings: dict[str, Standing] = {}
        self.retouched: list[RetouchSpec] = []
        self.notes: tuple[tuple[str, object], ...] = ()
        self.description = Description(sentence="a red square")
        self.questions: list[tuple[Picture, InWords | InTags]] = []
        self.merges: list[MergeOrder] = []
        self._events: dict[str, Event] = {}

    def submit(self, spec: Spec, standing: Standing = ANYBODY) -> str:
        if self.crash:
            raise self.crash
        if len([job for job in self.jobs() if job.state not in FINAL]) >= self.capacity:
            raise Busy("the queue is full")
        job_id = f"job{len(self._events)}"
        now = time.time()
        state: State = "running"
        steps = spec.steps if isinstance(spec, JobSpec) else 4
        status = JobStatus(job_id=job_id, spec=spec, state=state, submitted_at=now, started_at=now, steps=steps)
        if isinstance(spec, JobSpec):
            self.specs.append(spec)
        else:
            self.retouched.append(spec)
        self.standings[job_id] = standing
        self._events[job_id] = Event(status=status)
        if not self.held:
            self.finish(job_id)
        return job_id

    def finish(self, job_id: str, state: State = "done", pictures: int | None = None) -> None:
        status = self._events[job_id].status
        spec = status.spec
        count = _count(spec) if pictures is None else pictures
        drawn = [self._draw(spec, index) for index in range(count)]
        keeps = isinstance(spec, JobSpec) and spec.hires and spec.hires.keeps_first
        asides = (("-before-highres-fix", drawn[0]),) if keeps else ()
        if isinstance(spec, JobSpec) and spec.faces and spec.faces.keep:
            asides = (*asides, (BEFORE_FACES, drawn[0]))
        finished = tuple(
            Finished(index=i, picture=picture, notes=self.notes, asides=asides) for i, picture in enumerate(drawn)
        )
        if self.failure:
            state, finished = "failed", ()
        status = replace(status, state=state, ended_at=time.time(), fraction=1.0)
        self._events[job_id] = Event(status=status, pictures=finished, error=self.failure)

    def set(
        self,
        job_id: str,
        *,
        step: int = 0,
        worked: int | None = None,
        part: int = 0,
        iteration: int = 0,
        state: State = "running",
    ) -> None:
        worked = step if worked is None else worked
        before = self._events[job_id].status
        status = replace(before, step=step, worked=worked, part=part, iteration=iteration, state=state)
        self._events[job_id] = Event(status=status)

    def _draw(self, spec: Spec, index: int) -> Picture:
        if isinstance(spec, RetouchSpec):
            twice = spec.picture.repeat(2, 0).repeat(2, 1)
            return twice if isinstance(spec.work, Enlargement) else 255 - spec.picture
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
            self.finish(job_id, "interrupted", pictures=min(1, _count(status.spec)))

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

    def refresh(self, *, hidden: bool | None = None) -> None:
        self.refreshed += 1
        self.hidden = hidden

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

    def upscalers(self) -> Sequence[UpscalerInfo]:
        return tuple(self.shelf.upscalers)

    def find_upscaler(self, name: str) -> UpscalerInfo | None:
        return next((info for info in self.shelf.upscalers if info.name == name), None)

    def face_restorers(self) -> Sequence[FaceRestorerInfo]:
        return tuple(self.shelf.face_restorers)

    def hypernetworks(self) -> Sequence[HypernetworkInfo]:
        return tuple(self.shelf.hypernetworks)

    def embeddings(self) -> Sequence[EmbeddingInfo]:
        return tuple(self.shelf.embeddings)

    def find_embeddings(
        self, width: int | None, texts: Sequence[str], emphasis: Emphasis, comma_backtrack: int
    ) -> Sequence[EmbeddingInfo]:
        fitting = [info for info in self.shelf.embeddings if width in (None, info.width)]
        return [info for info in fitting if any(info.name in text for text in texts)]

    def count_tokens(self, width: int | None, text: str, emphasis: Emphasis, comma_backtrack: int) -> int:
        return len(text.split())

    async def merge(self, order: MergeOrder, report: Report, stop: Flag) -> CheckpointInfo:
        self.merges.append(order)
        report(Stage(text="Merging A and B", done=1, total=4))
        while self.held and not stop.is_set():  # noqa: ASYNC110  the test's thread ends it
            await asyncio.sleep(0.002)
        if stop.is_set():
            raise DarkroomError("the merge was interrupted")
        if self.failure:
            raise self.failure
        return self.models[0]

    async def describe(self, picture: Picture, question: InWords | InTags) -> Description:
        self.questions.append((picture, question))
        while self.held:  # noqa: ASYNC110  the test's thread ends it
            await asyncio.sleep(0.002)
        if self.failure:
            raise self.failure
        return self.description

    async def unload(self) -> None:
        self.loaded.clear()

    async def load(self, checkpoint: str) -> None:
        self.loaded.append(checkpoint)

    def memory(self) -> DeviceMemory | None:
        return self.device_memory

    def stats(self) -> EngineStats:
        return self.counted

    def ready(self) -> bool:
        return self.is_ready

    def close(self) -> None:
        self.closed = True
