"""What the engine counts while it works."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.job import Job
from darkroom.engine.loop import Loop
from darkroom.engine.tally import SECONDS, Tally
from tests.unit.engine.fake_runner import FakeRunner, finish, make_spec


def test_every_network_input_is_counted_once() -> None:
    runner, tally = FakeRunner(), Tally()
    loop = Loop(runner, max_lanes=8, max_rows=8, exact=False, tally=tally)
    jobs = [Job(f"j{seed}", make_spec(seeds=[seed], steps=3 + seed), ended_with=tally.count_job) for seed in range(4)]
    for job in jobs:
        loop.add(job)
    finish(loop, *jobs)
    stats = tally.read()
    rows = [sum(len(op.rows) for op in ops if hasattr(op, "rows")) for ops in runner.denoise_batches]
    assert sum(stats.rows["Denoise"].counts) == len(rows)
    assert stats.rows["Denoise"].total == sum(rows)
    assert stats.seconds.keys() == stats.rows.keys()
    assert stats.ended == {"done": 4}
    assert sum(stats.waits["fake"].counts) == sum(stats.services["fake"].counts) == 4


def test_a_job_that_never_began_is_counted_by_its_end_alone() -> None:
    tally = Tally()
    Job("j", make_spec(), ended_with=tally.count_job).end("cancelled")
    assert tally.read().ended == {"cancelled": 1}
    assert tally.read().waits == {}


@given(st.lists(st.floats(0, 2000)))
def test_a_histogram_holds_every_time_below_its_bound(times: list[float]) -> None:
    tally, status = Tally(), Job("j", make_spec()).status
    for seconds in times:
        tally.count_job(replace(status, state="done", submitted_at=0.0, started_at=0.0, ended_at=seconds))
    for histogram in tally.read().services.values():
        for place, bound in enumerate(SECONDS):
            assert sum(histogram.counts[: place + 1]) == sum(seconds <= bound for seconds in times)
        assert sum(histogram.counts) == len(times)


def test_what_was_read_stays_as_it_is() -> None:
    tally = Tally()
    tally.count_batch("Denoise", 2, 0.1)
    tally.note_resident(7)
    before = tally.read()
    tally.count_batch("Denoise", 2, 0.1)
    assert before.rows["Denoise"].total == 2
    assert (before.resident_bytes, tally.read().rows["Denoise"].total) == (7, 4)
