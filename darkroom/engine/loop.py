"""The device thread: admits jobs, picks questions, has them answered in batches, and moves the lanes on.

Knows no networks: a Runner answers. All state here belongs to the one thread that calls `run`; others leave messages.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from queue import Empty, SimpleQueue
from typing import Protocol

from darkroom.engine.client import State
from darkroom.engine.costs import BatchCosts
from darkroom.engine.job import Job
from darkroom.engine.lane import Lane, batch_key, company_of, kind_of, row_count
from darkroom.engine.policy import Changes, Waiting, linger_s, pick
from darkroom.engine.sharing import Share, Shares
from darkroom.engine.sojourns import Sojourns
from darkroom.engine.tally import Tally
from darkroom.engine.waitlist import Waitlist
from darkroom.engine.watching import UNWATCHED, Watcher
from darkroom.errors import DarkroomError, JobFailed, OutOfDeviceMemory
from darkroom.jobs.effort import efforts
from darkroom.jobs.ops import Answer, Program, Question
from darkroom.jobs.retouching import Spec

log = logging.getLogger(__name__)

Message = Callable[[], None]

NOTABLE_CHANGE_S = 0.002
"""Putting weights in place that are there already takes less."""

TIDY_EVERY_S = 1.0
"""How often a busy device looks for weights that nobody has used for long."""


KEEP_EVERY_S = 60.0
"""How often what batches cost is kept."""


class Runner(Protocol):
    """Answers questions. `answer` gets questions of one batch key and gives as many answers; it may raise
    OutOfDeviceMemory. `prepare` is called with the first of them beforehand, and may raise what `answer` may.
    """

    def session(self) -> AbstractContextManager[None]:
        """Entered once by the device thread: inference mode, device."""

    def program(self, spec: Spec, index: int) -> Program:
        """The program that makes picture `index` of the job."""

    def change_s(self, op: Question) -> float:
        """About how many seconds `prepare` would take now; 0 if everything is in place."""

    def is_apart(self, op: Question) -> bool:
        """Whether the question's answer is known to be the same bytes in any company."""

    def prepare(self, op: Question) -> None:
        """Have the weights in place that the question needs."""

    def answer(self, ops: Sequence[Question]) -> list[Answer]:
        """One answer per question, in order."""

    def tidy(self) -> float | None:
        """Drop what nobody has used for too long. In how many seconds there may be more of it; None if never."""


class Loop:
    """Holds the jobs of one device. `max_lanes` pictures are in work at once; further jobs wait for their turn.

    With `exact`, a picture never depends on its company: questions are answered alone, but for those whose answers are
    known to be the same in any. `clock` tells seconds. `costs` are what batches were found to cost before.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_lanes: int,
        max_rows: int,
        exact: bool,
        clock: Callable[[], float] = time.perf_counter,
        tally: Tally | None = None,
        watcher: Watcher = UNWATCHED,
        costs: BatchCosts | None = None,
    ) -> None:
        self._runner = runner
        self._max_lanes = max_lanes
        self._exact = exact
        self._costs = costs or BatchCosts(max_rows)
        self._mail: SimpleQueue[Message] = SimpleQueue()
        self._queue = Waitlist()
        self._held: list[Job] = []
        self._running: list[Job] = []
        self._arrivals = count()
        self._sojourns = Sojourns()
        self._changes = Changes()
        self._shares = Shares()
        self._clock = clock
        self._tally = tally or Tally()
        self._watcher = watcher
        self._idle_since_s = self._tidy_at_s = self._kept_at_s = clock()
        self._open = True

    def post(self, message: Message) -> None:
        """Have the device thread call `message` between two batches. From any thread."""
        self._mail.put(message)

    def run(self) -> None:
        """Work until `stop`, then cancel what is left. After an exception the jobs are the caller's to fail."""
        try:
            with self._runner.session():
                while self._open:
                    self.cycle()
        finally:
            while not self._mail.empty():
                self._mail.get()()
            self._costs.save()
        for job in [*self._running, *self._queue, *self._held]:
            job.end("cancelled")

    def cycle(self) -> None:
        """One turn: messages, admission, one batch. Waits for a message when there is nothing to do."""
        self._read_mail()
        self._admit()
        self._tidy()
        self._work(self._pick())

    # Messages, all called by the device thread.

    def stop(self) -> None:
        """End `run` after cancelling what is left."""
        self._open = False

    def add(self, job: Job) -> None:
        """Queue a job."""
        self._queue.add(job, self._clock())

    def hold(self, job: Job) -> None:
        """Keep a job that cannot begin yet, because of something that is done elsewhere."""
        self._held.append(job)

    def release(self, job: Job) -> None:
        """Queue a job that was held, unless somebody dropped it."""
        if job in self._held:
            self._held.remove(job)
            self.add(job)

    def interrupt(self, job: Job, *, skip: bool = False) -> None:
        """Stop a running job's sampling, or only that of its present iteration. A queued job is dropped."""
        if job in self._queue or job in self._held:
            self.cancel(job)
        elif job in self._running:
            job.mark(skipped=True) if skip else job.mark(interrupted=True)
            for lane in job.lanes:
                self._guard(job, lane.interrupt)
            self._settle(job)

    def cancel(self, job: Job) -> None:
        """Drop a job, wherever it is."""
        if job in self._queue:
            self._queue.remove(job)
        elif job in self._held:
            self._held.remove(job)
        elif job in self._running:
            self._running.remove(job)
        else:
            return
        job.end("cancelled")

    # The parts of a turn.

    def _read_mail(self) -> None:
        if not self._running and not self._queue:
            self._wait(self._runner.tidy())
        while not self._mail.empty():
            self._mail.get()()

    def _wait(self, limit_s: float | None) -> None:
        """Wait for a message and heed it. None waits as long as it takes."""
        try:
            self._mail.get(timeout=limit_s)()
        except Empty:
            return

    def _tidy(self) -> None:
        if self._clock() >= self._tidy_at_s:
            self._runner.tidy()
            self._tidy_at_s = self._clock() + TIDY_EVERY_S
        if self._clock() >= self._kept_at_s + KEEP_EVERY_S:
            self._costs.save()
            self._kept_at_s = self._clock()

    def _admit(self) -> None:
        while self._queue:
            job = self._queue.next(self._taken(), self._max_lanes, self._clock())
            if job is None:
                return
            self._running.append(job)
            self._start_iteration(job, 0)

    def _taken(self) -> Counter[str]:
        """How many lanes each party has."""
        taken = Counter[str]()
        for job in self._running:
            taken[job.standing.party] += len(job.lanes)
        return taken

    def _start_iteration(self, job: Job, iteration: int) -> None:
        size = job.spec.batch_size
        indices = range(iteration * size, (iteration + 1) * size)

        def start() -> None:
            job.start_iteration([self._lane(job.spec, index) for index in indices])

        self._guard(job, start)
        self._settle(job)

    def _lane(self, spec: Spec, index: int) -> Lane:
        arrival = next(self._arrivals)
        self._sojourns.enter(arrival, self._costs.expected_s(efforts(spec)))
        return Lane(self._runner.program(spec, index), index=index, arrival=arrival)

    def _pick(self) -> list[tuple[Job, Lane, Question]]:
        asking = {
            lane.arrival: (job, lane, lane.op) for job in self._running for lane in job.lanes if lane.op is not None
        }
        self._sojourns.keep(asking, lambda place: self._left_s(*asking[place][:2]))
        waiting = self._waiting(asking)
        pause_s = linger_s(waiting, self._changes.worked_since, self._clock() - self._idle_since_s)
        if pause_s > 0:
            self._wait(pause_s)
            return []
        ops = {one.key: asking[one.lane][2] for one in waiting}
        chosen = pick(waiting, lambda key: self._cap(ops[key]), self._changes.worked_since)
        return [asking[one.lane] for one in chosen]

    def _cap(self, op: Question) -> int:
        """How many rows a batch of such questions may have; a question of more is a batch of its own."""
        return 0 if self._exact and not self._runner.is_apart(op) else self._costs.cap(kind_of(op))

    def _left_s(self, job: Job, lane: Lane) -> float:
        """About how long a lane still takes."""
        return self._costs.expected_s(efforts(job.spec)) * max(0.0, 1 - lane.passed / job.spec.passes)

    def _waiting(self, asking: Mapping[int, tuple[Job, Lane, Question]]) -> list[Waiting]:
        """The lanes' questions as the policy sees them. What is of one kind needs the same weights."""
        keys = {place: batch_key(op) for place, (_, _, op) in asking.items()}
        kinds = {keys[place]: op for place, (_, _, op) in asking.items()}
        levels = self._shares.levels(
            {
                place: Share(party=job.standing.party, end_s=self._sojourns.end_s(place), arrival=place)
                for place, (job, _, _) in asking.items()
            }
        )
        change_s = {key: self._runner.change_s(op) for key, op in kinds.items()}
        return [
            Waiting(
                lane=place,
                key=keys[place],
                rows=row_count(op),
                level=levels[place],
                arrival=place,
                change_s=change_s[keys[place]],
                stage=lane.stage,
                company=company_of(job.spec, op),
            )
            for place, (job, lane, op) in asking.items()
        ]

    def _work(self, batch: list[tuple[Job, Lane, Question]]) -> None:
        """Answer a batch. What fails together is tried again apart, so that a faulty job fails alone."""
        if not batch:
            return
        ops = [op for _, _, op in batch]
        rows = sum(map(row_count, ops))
        try:
            self._prepare(ops[0])
            began = self._clock()
            answers = self._runner.answer(ops)
        except Exception as error:  # noqa: BLE001 - the lane boundary: whatever a network does, the other jobs go on
            self._retry_apart(batch, rows, error)
            return
        self._idle_since_s = self._clock()
        seconds = self._idle_since_s - began
        self._changes.work(seconds)
        self._costs.observe(kind_of(ops[0]), rows, seconds)
        self._sojourns.work(seconds)
        self._count(batch, rows, seconds)
        for (job, lane, op), answer in zip(batch, answers, strict=True):
            share_s = seconds * row_count(op) / rows
            self._sojourns.serve(lane.arrival, share_s)
            self._shares.serve(job.standing.party, share_s)
            self._guard(job, lambda lane=lane, answer=answer: lane.answer(answer))  # type: ignore[misc]
        for job in dict.fromkeys(job for job, _, _ in batch):
            self._settle(job)

    def _count(self, batch: list[tuple[Job, Lane, Question]], rows: int, seconds: float) -> None:
        kind = type(batch[0][2]).__name__
        self._tally.count_batch(kind, rows, seconds)
        shares = Counter[str]()
        for job, _, op in batch:
            shares[job.job_id] += row_count(op)
        self._watcher.worked(kind, shares, seconds)

    def _prepare(self, op: Question) -> None:
        """Changes of weights are nobody's own cost: they are kept few instead."""
        began = self._clock()
        self._runner.prepare(op)
        seconds = self._clock() - began
        if seconds >= NOTABLE_CHANGE_S:
            self._changes.change(seconds)

    def _retry_apart(self, batch: list[tuple[Job, Lane, Question]], rows: int, error: Exception) -> None:
        if isinstance(error, OutOfDeviceMemory):
            log.warning("out of device memory at %d rows", rows)
            self._costs.shrink(kind_of(batch[0][2]), rows)
        if len(batch) == 1:
            self._fail(batch[0][0], error)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            # A failure in the first half may have ended jobs that have lanes in the second.
            self._work([entry for entry in half if not entry[0].ended])

    def _guard(self, job: Job, act: Callable[[], None]) -> None:
        if job.ended:
            return
        try:
            act()
        except Exception as error:  # noqa: BLE001 - the lane boundary: a program's fault is its own job's
            self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        if isinstance(error, DarkroomError):
            log.warning("job %s failed: %s", job.job_id, error, extra=job.noted)
            shown = error
        else:
            log.error("job %s failed", job.job_id, exc_info=error, extra=job.noted)
            shown = JobFailed(
                f"job {job.job_id} stopped on an unexpected {type(error).__name__}; the server's log has the details"
            )
        self._running.remove(job)
        job.end("failed", shown)

    def _settle(self, job: Job) -> None:
        """After a job's lanes moved: report, or go on to the next iteration, or end."""
        if job.ended:
            return
        if not job.collect():
            job.report()
        elif job.status.interrupted:
            self._finish(job, "interrupted")
        elif job.status.iteration + 1 < job.spec.n_iter:
            job.lanes = []
            self._start_iteration(job, job.status.iteration + 1)
        else:
            self._finish(job, "done")

    def _finish(self, job: Job, state: State) -> None:
        self._running.remove(job)
        job.end(state)
