"""The loop and changes of weights: a device with room for one checkpoint, and a clock that work moves."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Timer
from time import perf_counter

from darkroom.engine.job import Job
from darkroom.engine.loop import Loop
from darkroom.engine.policy import tenure_s
from darkroom.errors import BadModelFile
from darkroom.jobs.ops import Answer, Denoise, EncodeText, Question
from tests.unit.engine.fake_runner import FakeRunner, finish, make_spec

CHANGE_S = 2.0
STEP_S = 0.5


@dataclass
class SmallDevice(FakeRunner):
    """Loading takes `CHANGE_S`, an evaluation `STEP_S`. The checkpoint `broken` cannot be loaded."""

    broken: str = ""
    now_s: float = 0.0
    present: str = ""
    loads: list[str] = field(default_factory=list)
    tidied: int = 0
    held: bool = True

    def change_s(self, op: Question) -> float:
        return 0.0 if checkpoint_of(op) in ("", self.present) else CHANGE_S

    def prepare(self, op: Question) -> None:
        checkpoint = checkpoint_of(op)
        if checkpoint in ("", self.present):
            return
        if checkpoint == self.broken:
            raise BadModelFile(f"{checkpoint}: broken")
        self.now_s += CHANGE_S
        self.present = checkpoint
        self.loads.append(checkpoint)

    def answer(self, ops: Sequence[Question]) -> list[Answer]:
        self.now_s += STEP_S
        return super().answer(ops)

    def tidy(self) -> float | None:
        self.tidied += 1
        return 0.01 if self.held else None

    def loop(self) -> Loop:
        return Loop(self, max_lanes=64, max_rows=64, exact=False, clock=lambda: self.now_s + perf_counter())


def checkpoint_of(op: Question) -> str:
    return op.model.checkpoint if isinstance(op, Denoise | EncodeText) else ""


def add(loop: Loop, checkpoint: str, seed: int = 1, steps: int = 20) -> Job:
    job = Job("job", replace(make_spec(seeds=[seed], steps=steps), checkpoint=checkpoint))
    loop.add(job)
    return job


def test_jobs_of_one_checkpoint_are_finished_together_before_another_is_loaded() -> None:
    device = SmallDevice()
    loop = device.loop()
    jobs = [add(loop, "ab"[i % 2], seed=i, steps=3) for i in range(8)]
    finish(loop, *jobs)
    assert device.loads == ["a", "b"]


def test_long_jobs_take_turns_but_not_at_every_step() -> None:
    device = SmallDevice()
    loop = device.loop()
    jobs = [add(loop, name, steps=60) for name in "ab"]
    finish(loop, *jobs)
    worked_s = device.now_s - CHANGE_S * len(device.loads)
    assert 4 <= len(device.loads) <= 2 + worked_s / tenure_s(CHANGE_S)


def test_a_job_that_comes_late_waits_for_no_more_work_than_the_tenure() -> None:
    device = SmallDevice()
    loop = device.loop()
    long = add(loop, "a", steps=100)
    for _ in range(30):
        loop.cycle()
    late = add(loop, "b", steps=2)
    came_s = device.now_s
    while device.present != "b":
        loop.cycle()
    assert device.now_s - came_s <= tenure_s(CHANGE_S) + CHANGE_S + 2 * STEP_S
    finish(loop, late, long)


def test_a_checkpoint_that_cannot_be_loaded_fails_its_job_and_the_others_keep_theirs() -> None:
    device = SmallDevice(broken="b")
    loop = device.loop()
    good, bad, other = add(loop, "a", steps=5), add(loop, "b", steps=5), add(loop, "b", seed=2, steps=5)
    assert [one.state for one in finish(loop, good, bad, other)] == ["done", "failed", "failed"]
    assert device.loads == ["a"]


def test_the_device_waits_a_moment_for_the_next_request_of_the_checkpoint_that_is_there() -> None:
    device = SmallDevice()
    loop = device.loop()
    finish(loop, add(loop, "a", steps=1))
    waiting = add(loop, "b", steps=1)
    again: list[Job] = []
    late = Timer(0.05, lambda: loop.post(lambda: again.append(add(loop, "a", seed=2, steps=1))))
    late.start()
    loop.cycle()
    late.join()
    assert again, "the loop stood still until somebody came"
    finish(loop, waiting, *again)
    assert device.loads == ["a", "b"]


def test_an_idle_device_looks_for_what_nobody_uses_as_long_as_there_is_something() -> None:
    device = SmallDevice()
    loop = device.loop()
    finish(loop, add(loop, "a", steps=1))
    for count in range(3):
        device.tidied = 0
        loop.cycle()
        assert device.tidied == 1, count
    end = Timer(0.05, lambda: loop.post(loop.stop))
    end.start()
    device.held = False
    loop.run()
    end.join()
