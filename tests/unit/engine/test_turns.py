"""The engine's turns between parties, asserted exactly: a runner with closed answers, and a clock that counts them."""

from collections.abc import Sequence

import pytest

from darkroom.engine.client import Standing
from darkroom.engine.job import Job
from darkroom.engine.loop import Loop
from darkroom.jobs.ops import Answer, Question
from darkroom.jobs.spec import JobSpec
from darkroom.turns import PATIENCE_S
from tests.unit.engine.fake_runner import FakeRunner, make_spec

STEPS = 6
EVALUATION_S = 1.0


class TimedRunner(FakeRunner):
    """Every forward pass takes a second for each network input in it: nothing is gained by batches."""

    now = 0.0

    def answer(self, ops: Sequence[Question]) -> list[Answer]:
        answers = super().answer(ops)
        self.now += EVALUATION_S * len(ops)
        return answers


class Device:
    """A loop, and its jobs by whom they are for."""

    def __init__(self, *, max_lanes: int, max_rows: int = 1) -> None:
        self.runner = TimedRunner()
        self.loop = Loop(
            self.runner, max_lanes=max_lanes, max_rows=max_rows, exact=False, clock=lambda: self.runner.now
        )
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self._jobs: list[Job] = []

    def bring(self, party: str, name: str, *, priority: int = 0, spec: JobSpec | None = None) -> Job:
        job = Job(name, spec or make_spec(name, steps=STEPS), standing=Standing(party=party, priority=priority))
        self._jobs.append(job)
        self.loop.add(job)
        return job

    def work_until(self, job: Job) -> None:
        while not job.ended:
            self.loop.cycle()
            for one in self._jobs:
                if one.status.state != "queued":
                    self.began.setdefault(one.job_id, self.runner.now)
                if one.ended:
                    self.ended.setdefault(one.job_id, self.runner.now)


def alone_s() -> float:
    """How long a job takes that has the device to itself."""
    device = Device(max_lanes=1)
    device.work_until(device.bring("", "alone"))
    return device.ended["alone"]


@pytest.mark.parametrize("max_lanes", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("after", [0, 3, 40])
def test_five_hundred_jobs_delay_another_one_s_job_by_no_more_than_two_jobs_time(max_lanes: int, after: int) -> None:
    device, job_s = Device(max_lanes=max_lanes), alone_s()
    for number in range(500):
        device.bring("flood", f"flood {number}")
    for _ in range(after):
        device.loop.cycle()
    came = device.runner.now
    device.work_until(device.bring("ben", "ben"))
    assert device.began["ben"] - came <= 2 * job_s
    assert device.ended["ben"] - came <= 3 * job_s + EVALUATION_S


def test_where_nobody_is_told_apart_jobs_are_begun_as_they_came() -> None:
    device = Device(max_lanes=2)
    jobs = [device.bring("", f"{number}") for number in range(7)]
    device.work_until(jobs[-1])
    assert list(device.began) == [f"{number}" for number in range(7)]


def test_parties_share_the_device_and_not_their_jobs() -> None:
    device, job_s = Device(max_lanes=8), alone_s()
    for number in range(20):
        device.bring("flood", f"flood {number}")
    one, two = device.bring("ann", "ann"), device.bring("ben", "ben")
    device.work_until(one)
    device.work_until(two)
    assert max(device.ended["ann"], device.ended["ben"]) <= 3 * job_s + 3 * EVALUATION_S


def test_a_higher_priority_is_begun_first_within_a_party_and_between_parties() -> None:
    device = Device(max_lanes=1)
    device.bring("ann", "at work")
    device.loop.cycle()
    last = device.bring("ann", "ann low", priority=-1)
    device.bring("ann", "ann plain")
    device.bring("ben", "ben plain")
    device.bring("ann", "ann high", priority=5)
    device.bring("ben", "ben higher", priority=7)
    device.work_until(last)
    assert list(device.began) == ["at work", "ben higher", "ann high", "ben plain", "ann plain", "ann low"]


def test_a_low_priority_does_not_wait_for_ever() -> None:
    device, job_s = Device(max_lanes=1), alone_s()
    low = device.bring("ann", "low", priority=-10)
    for number in range(100):
        device.bring("ben", f"ben {number}", priority=10)
    device.work_until(low)
    assert device.began["low"] <= PATIENCE_S + 2 * job_s


def test_a_large_job_waits_for_its_room_and_is_not_overtaken_for_ever() -> None:
    device = Device(max_lanes=4)
    for number in range(10):
        device.bring("ann", f"ann {number}")
    device.loop.cycle()
    large = device.bring("ben", "large", spec=make_spec("large", seeds=range(4), steps=STEPS))
    device.work_until(large)
    begun_before = [name for name in device.began if device.began[name] < device.began["large"]]
    assert len(begun_before) <= 4


def test_somebody_new_finds_a_place_where_others_have_filled_theirs() -> None:
    device = Device(max_lanes=8)
    for number in range(20):
        device.bring("flood", f"flood {number}")
    device.loop.cycle()
    assert sum(job.status.state == "running" for job in device._jobs) == 6
    new = device.bring("ben", "ben")
    device.loop.cycle()
    assert new.status.state == "running"
    more = device.bring("flood", "more")
    device.loop.cycle()
    assert more.status.state == "queued"


def test_a_job_that_is_cancelled_in_the_queue_leaves_the_others_in_order() -> None:
    device = Device(max_lanes=1)
    first = device.bring("ann", "first")
    jobs = [device.bring("ann", f"{number}") for number in range(4)]
    device.loop.cancel(jobs[1])
    device.loop.interrupt(jobs[2])
    device.work_until(jobs[3])
    assert first.ended
    assert device.ended.keys() == {"first", "0", "1", "2", "3"}
    assert device.ended["0"] < device.ended["3"]
    assert [job.status.state for job in jobs] == ["done", "cancelled", "cancelled", "done"]


def test_somebody_new_shares_from_now_on_and_has_no_claim_to_the_time_before() -> None:
    device, job_s = Device(max_lanes=8), alone_s()
    for number in range(30):
        device.bring("ann", f"ann {number}")
    device.work_until(device.bring("ann", "ann last of the first"))
    came = device.runner.now
    for number in range(30):
        device.bring("ben", f"ben {number}")
        device.bring("ann", f"ann again {number}")
    device.work_until(device.bring("ann", "ann last"))
    meanwhile = [name for name, moment in device.ended.items() if moment > came and name.startswith("ann")]
    others = [name for name in device.ended if name.startswith("ben")]
    assert abs(len(meanwhile) - len(others)) <= 4
    assert device.runner.now - came <= 62 * job_s
