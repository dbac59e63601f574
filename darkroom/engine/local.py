"""The engine in this process: one device, one thread that owns it, jobs by id.

Importing this module is cheap; torch and the networks are imported by the device thread.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Thread
from typing import TYPE_CHECKING, TypeVar

from darkroom.engine.catalogue import Catalogue
from darkroom.engine.client import ANYBODY, DeviceMemory, EngineStats, Event, JobStatus, Preview, Standing
from darkroom.engine.job import Job
from darkroom.engine.tally import Tally
from darkroom.engine.torch_environment import prepare_environment
from darkroom.engine.watching import UNWATCHED, Watcher
from darkroom.errors import BadModelFile, Busy, DarkroomError, UnknownName
from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.merging import MergeOrder, Report
from darkroom.jobs.networks import (
    AdapterInfo,
    EmbeddingInfo,
    FaceRestorerInfo,
    HypernetworkInfo,
    UpscalerInfo,
    VaeInfo,
)
from darkroom.jobs.retouching import Spec
from darkroom.jobs.spec import CheckpointInfo, Emphasis, JobSpec, Picture
from darkroom.logs import job_in_hand, trace_in_hand
from darkroom.settings import Settings
from darkroom.turns import has_place

if TYPE_CHECKING:
    from darkroom.engine.describing import Describing
    from darkroom.engine.loop import Loop
    from darkroom.engine.runner import NetworkRunner

log = logging.getLogger(__name__)

T = TypeVar("T")

STOPPED = "the device has stopped; the server's log says why"
KNEES = "batch-costs.json"
"""The file in the data folder that keeps what batches were found to cost."""

REMEMBERED_JOBS = 256
REMEMBERED_RESULTS = 8


class LocalEngine:
    """Hosts jobs on this machine's device. Starts its thread at once; `ready()` says when the first checkpoint is
    warm.
    """

    def __init__(self, settings: Settings, watcher: Watcher = UNWATCHED) -> None:
        self._settings = settings
        self._catalogue = Catalogue(settings)
        self._jobs: dict[str, Job] = {}
        self._merges: set[Flag] = set()
        self._tally = Tally()
        self._watcher = watcher
        self._lock = Lock()
        self._ready = self._stopped = False
        self._loop: Future[Loop] = Future()
        self._runner: NetworkRunner | None = None
        self._thread = Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    # The Engine protocol.

    def submit(self, spec: Spec, standing: Standing = ANYBODY) -> str:
        if isinstance(spec, JobSpec):
            for checkpoint in _checkpoints(spec):
                self._catalogue.get(checkpoint)
        job = Job(
            secrets.token_hex(8),
            spec,
            standing=standing,
            request=job_in_hand(),
            trace=trace_in_hand(),
            ended_with=self._note_end,
        )
        with self._lock:
            if self._stopped:
                raise DarkroomError(STOPPED)
            self._check_room(standing.party)
            self._jobs[job.job_id] = job
            self._watcher.submitted(job.job_id)
            self._forget_old()
        pickled = [self._catalogue.find_pickled(key) for key in _checkpoints(spec)] if isinstance(spec, JobSpec) else []
        if any(pickled):
            self._post(lambda loop: loop.hold(job))
            Thread(target=self._copy_first, args=(job, pickled), name="copying", daemon=True).start()
        else:
            self._post(lambda loop: loop.add(job))
        return job.job_id

    def _check_room(self, party: str) -> None:
        """Raises Busy where as many wait as may, or as may of one party."""
        room = self._settings.max_queue
        queued = Counter(job.standing.party for job in self._jobs.values() if job.status.state == "queued")
        if queued.total() >= room:
            raise Busy(f"{queued.total()} jobs are waiting already; at most {room} may")
        if not has_place(party, queued, room):
            raise Busy(f"{queued[party]} of your jobs are waiting already; the rest of the queue is for others")

    def _note_end(self, status: JobStatus) -> None:
        self._tally.count_job(status)
        self._watcher.ended(status)

    def _copy_first(self, job: Job, pickled: Sequence[Path | None]) -> None:
        """Have a job wait for safetensors copies of its checkpoints, and nobody else for them."""
        for path in filter(None, pickled):
            self._copy(path)
        self._post(lambda loop: loop.release(job))

    def _copy(self, path: Path) -> None:
        try:
            self._catalogue.copy(path)
        except BadModelFile as error:
            log.info("%s", error)  # loading it will say so again, to the job

    def events(self, job_id: str) -> AsyncIterator[Event]:
        return self._get(job_id).events()

    def status(self, job_id: str) -> JobStatus:
        return self._get(job_id).status

    def jobs(self) -> Sequence[JobStatus]:
        with self._lock:
            return sorted((job.status for job in self._jobs.values()), key=lambda status: status.ended_at is not None)

    def interrupt(self, job_id: str) -> None:
        job = self._get(job_id)
        self._post(lambda loop: loop.interrupt(job))

    def skip(self, job_id: str) -> None:
        job = self._get(job_id)
        self._post(lambda loop: loop.interrupt(job, skip=True))

    def cancel(self, job_id: str) -> None:
        job = self._get(job_id)
        self._post(lambda loop: loop.cancel(job))

    async def preview(self, job_id: str, preview: Preview) -> Sequence[Picture]:
        job = self._get(job_id)
        return [] if self._stopped else await self._ask(lambda: self._preview(job, preview))

    async def merge(self, order: MergeOrder, report: Report, stop: Flag) -> CheckpointInfo:
        self._merges.add(stop)
        try:
            return await asyncio.to_thread(self._merge, order, report, stop)
        finally:
            self._merges.discard(stop)

    async def describe(self, picture: Picture, question: InWords | InTags) -> Description:
        if self._stopped:
            raise DarkroomError(STOPPED)
        parts = await self._ask(lambda: self._get_runner().describe(picture, question))
        try:
            while (found := await self._ask(lambda: _next_part(parts))) is None:
                pass  # here jobs have their turn
        finally:
            self._post(lambda _: parts.close())
        return found

    async def unload(self) -> None:
        if not self._stopped:
            await self._ask(lambda: self._get_runner().unload())

    async def load(self, checkpoint: str) -> None:
        if self._stopped:
            raise DarkroomError(STOPPED)
        pickled = self._catalogue.find_pickled(checkpoint)
        if pickled is not None:
            await asyncio.to_thread(self._copy, pickled)
        await self._ask(lambda: self._get_runner().load(checkpoint))

    def memory(self) -> DeviceMemory | None:
        return self._runner.memory() if self._runner else None

    def stats(self) -> EngineStats:
        if self._runner and not self._stopped:  # what is loaded is the device thread's to tell, when it has time
            self._post(lambda _: self._tally.note_resident(self._get_runner().resident_bytes()))
        return self._tally.read()

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return self._catalogue.checkpoints()

    def refresh(self, *, hidden: bool | None = None) -> None:
        self._catalogue.refresh(hidden=hidden)

    def adapters(self) -> Sequence[AdapterInfo]:
        return self._catalogue.small.adapters()

    def find_adapter(self, name: str) -> AdapterInfo | None:
        return self._catalogue.small.find_adapter(name)

    def adapter_hash(self, name: str) -> str | None:
        return self._catalogue.small.adapter_hash(name)

    def autoencoders(self) -> Sequence[VaeInfo]:
        return self._catalogue.small.autoencoders()

    def vae_hash(self, name: str) -> str | None:
        return self._catalogue.small.vae_hash(name)

    def hypernetworks(self) -> Sequence[HypernetworkInfo]:
        return self._catalogue.small.hypernetworks()

    def upscalers(self) -> Sequence[UpscalerInfo]:
        return self._catalogue.small.upscalers()

    def find_upscaler(self, name: str) -> UpscalerInfo | None:
        return self._catalogue.small.find_upscaler(name)

    def face_restorers(self) -> Sequence[FaceRestorerInfo]:
        return self._catalogue.small.face_restorers()

    def embeddings(self) -> Sequence[EmbeddingInfo]:
        return self._catalogue.small.embeddings()

    def find_embeddings(
        self, width: int | None, texts: Sequence[str], emphasis: Emphasis, comma_backtrack: int
    ) -> Sequence[EmbeddingInfo]:
        return self._catalogue.small.find_embeddings(width, texts, emphasis, comma_backtrack)

    def count_tokens(self, width: int | None, text: str, emphasis: Emphasis, comma_backtrack: int) -> int:
        return self._catalogue.small.count_tokens(width, text, emphasis, comma_backtrack)

    def ready(self) -> bool:
        return self._ready

    def close(self) -> None:
        for stop in tuple(self._merges):
            stop.set()
        self._post(lambda loop: loop.stop())
        self._thread.join(timeout=30)
        self._catalogue.close()

    # The device thread.

    def _work(self) -> None:
        try:
            self._start().run()
        except Exception as error:  # the device boundary: without this thread nothing more can be drawn
            log.critical("the device has stopped: %s", error, exc_info=not isinstance(error, DarkroomError))
            if not self._loop.done():
                self._loop.set_exception(error)
        finally:
            self._abandon()

    def _start(self) -> Loop:
        prepare_environment()
        from darkroom.engine import knees
        from darkroom.engine.costs import BatchCosts
        from darkroom.engine.loop import Loop
        from darkroom.engine.runner import NetworkRunner

        settings = self._settings
        self._runner = NetworkRunner(settings, self._catalogue)
        file, machine = settings.data_dir / KNEES, self._runner.machine
        loop = Loop(
            self._runner,
            max_lanes=settings.max_lanes,
            max_rows=settings.max_rows,
            exact=settings.exact,
            tally=self._tally,
            watcher=self._watcher,
            costs=BatchCosts(
                settings.max_rows, knees.read(file, machine), lambda tables: knees.write(file, machine, tables)
            ),
        )
        loop.post(self._warm_up)
        self._loop.set_result(loop)
        return loop

    def _abandon(self) -> None:
        """Refuse new jobs and give an end to those that have none: their device is gone."""
        with self._lock:
            self._ready, self._stopped = False, True
            for job in self._jobs.values():
                if not job.ended:
                    job.end("failed", DarkroomError(STOPPED))

    def _warm_up(self) -> None:
        assert self._runner is not None
        for checkpoint in self._catalogue.checkpoints()[:1]:
            try:
                self._runner.warm_up(checkpoint.key)
            except Exception:  # a bad file is the caller's to hear about, when a job asks for it
                log.exception("%s cannot be used", checkpoint.path)
        self._ready = True

    def _preview(self, job: Job, preview: Preview) -> Sequence[Picture]:
        if preview.finished:
            shown = job.last_finished()
            return shown if preview.whole_batch else shown[:1]
        seen = [estimate for lane in job.lanes if (estimate := lane.estimate(preview.content))]
        chosen = seen if preview.whole_batch else seen[:1]
        pictures = (self._get_runner().preview(model, latent, preview.method) for model, latent in chosen)
        return [picture for picture in pictures if picture is not None]

    def _merge(self, order: MergeOrder, report: Report, stop: Flag) -> CheckpointInfo:
        from darkroom.engine.merging import merge

        return merge(order, self._catalogue, self._settings.checkpoint_dir, report, stop)

    def is_compiling(self) -> bool:
        """Whether a network is being compiled now. From any thread."""
        return self._runner is not None and self._runner.is_compiling

    def _get_runner(self) -> NetworkRunner:
        assert self._runner is not None
        return self._runner

    async def _ask(self, question: Callable[[], T]) -> T:
        """Have the device thread call `question` between two batches, and give what it says or raise what it raises."""
        answer: Future[T] = Future()

        def ask() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # whoever asked has gone
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 - a question must never take the device thread down with it
                answer.set_exception(error)

        self._post(lambda _: ask())
        return await asyncio.wrap_future(answer)

    def _post(self, message: Callable[[Loop], None]) -> None:
        """Have the device thread call `message` once it runs; dropped if it never does."""

        def deliver(started: Future[Loop]) -> None:
            if started.exception() is None:
                loop = started.result()
                loop.post(lambda: message(loop))

        self._loop.add_done_callback(deliver)

    # Bookkeeping.

    def _get(self, job_id: str) -> Job:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise UnknownName("job", job_id, [])
        return job

    def _forget_old(self) -> None:
        """Keep the statuses of some ended jobs, and the pictures of even fewer: memory is bounded whatever clients
        do.
        """
        ended = [job for job in self._jobs.values() if job.ended]
        for job in ended[:-REMEMBERED_RESULTS]:
            job.forget_result()
        for job in ended[:-REMEMBERED_JOBS]:
            del self._jobs[job.job_id]


def _checkpoints(spec: JobSpec) -> list[str]:
    """The keys of all checkpoints that a job uses."""
    others = (spec.hires, spec.refiner)
    return [spec.checkpoint, *(other.checkpoint for other in others if other)]


def _next_part(parts: Describing) -> Description | None:
    """Go on with a description; what it says once it is complete. A StopIteration cannot go to another thread."""
    try:
        next(parts)
    except StopIteration as end:
        found: Description = end.value
        return found
    return None
