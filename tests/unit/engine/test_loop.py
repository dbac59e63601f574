"""The engine's promises, asserted exactly with a runner whose answers have a closed form."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from darkroom.engine.job import Job
from darkroom.engine.loop import Loop
from darkroom.errors import JobFailed, OutOfDeviceMemory
from darkroom.jobs.ops import Answer, Denoise, Question
from darkroom.jobs.retouching import Enlargement, RetouchSpec
from darkroom.jobs.spec import InitImage, JobSpec
from tests.unit.engine.fake_runner import FakeRunner, draw, finish, make_loop, make_spec, outcome, start

SAMPLERS = ["Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "DDIM"]


def evaluations(sampler: str, steps: int) -> int:
    runner = FakeRunner()
    loop = make_loop(runner)
    finish(loop, start(loop, make_spec(sampler=sampler, steps=steps)))
    return len(runner.denoise_batches)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_same_alone_and_among_seven_others(sampler: str) -> None:
    spec = make_spec(seeds=[5], sampler=sampler)
    loop = make_loop(FakeRunner())
    jobs = [start(loop, spec)]
    for i in range(7):
        jobs.append(start(loop, make_spec(f"another {i}", seeds=[i], sampler=SAMPLERS[i % 6], steps=3 + i)))
        loop.cycle()
    crowded = finish(loop, *jobs)[0]
    np.testing.assert_array_equal(crowded.pictures[0], draw(spec)[0])


def test_evaluations_of_different_jobs_share_a_batch() -> None:
    runner = FakeRunner()
    loop = make_loop(runner, max_rows=16)
    finish(loop, *[start(loop, make_spec(seeds=[i], steps=40, sampler=SAMPLERS[i % 6])) for i in range(8)])
    assert max(len(ops) for ops in runner.denoise_batches) > 1


def test_in_exact_mode_every_evaluation_runs_alone() -> None:
    runner = FakeRunner()
    loop = make_loop(runner, exact=True)
    finish(loop, *[start(loop, make_spec(seeds=[i])) for i in range(4)])
    assert {len(ops) for ops in runner.batches} == {1}


def test_in_exact_mode_evaluations_share_a_batch_that_are_the_same_in_any() -> None:
    runner = FakeRunner(apart=(Denoise,))
    loop = make_loop(runner, exact=True)
    finish(loop, *[start(loop, make_spec(seeds=[i], steps=40)) for i in range(8)])
    assert max(len(ops) for ops in runner.denoise_batches) > 1
    assert {len(ops) for ops in runner.batches if not isinstance(ops[0], Denoise)} == {1}


class SteadyRunner(FakeRunner):
    """A forward pass takes half a second, and a quarter for every question in it."""

    now = 0.0

    def answer(self, ops: Sequence[Question]) -> list[Answer]:
        self.now += 0.5 + 0.25 * len(ops)
        return super().answer(ops)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("after", [2, 5, 8])
def test_who_comes_while_another_is_drawn_shares_the_next_batch(exact: bool, after: int) -> None:
    runner = SteadyRunner(apart=(Denoise,))
    loop = Loop(runner, max_lanes=16, max_rows=16, exact=exact, clock=lambda: runner.now)
    finish(loop, *[start(loop, make_spec(seeds=[i], steps=20)) for i in range(8)])  # what batches cost is known now
    first = start(loop, make_spec(seeds=[1], steps=12))
    for _ in range(after):
        loop.cycle()
    later = [start(loop, make_spec(seeds=[i], steps=12)) for i in (2, 3)]
    for _ in range(5):  # the texts of the two, one by one if they must be, and a step
        loop.cycle()
    assert len(runner.denoise_batches[-1]) == 3
    assert all(one.state == "done" for one in finish(loop, first, *later))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupt_at_any_evaluation_gives_a_picture(sampler: str) -> None:
    total = evaluations(sampler, 5)
    for at in range(total + 2):
        runner = FakeRunner()
        loop = make_loop(runner)
        job = start(loop, make_spec(sampler=sampler, steps=5))
        for _ in range(at + 1):
            loop.cycle()
        loop.interrupt(job)
        [ended] = finish(loop, job)
        assert ended.state == "interrupted"
        assert [picture.shape for picture in ended.pictures] == [(32, 32, 3)]
        assert len(runner.denoise_batches) <= at + 1
        assert not runner.open_programs


def test_an_interrupt_keeps_finished_pictures_and_starts_no_further_batch() -> None:
    loop = make_loop(FakeRunner())
    job = start(loop, make_spec(seeds=range(6), n_iter=3, steps=3))
    while job.status.iteration < 1:
        loop.cycle()
    loop.interrupt(job)
    [ended] = finish(loop, job)
    assert (ended.state, len(ended.pictures)) == ("interrupted", 4)


def test_a_skip_shortens_only_the_batch_that_runs() -> None:
    runner = FakeRunner()
    loop = make_loop(runner)
    job = start(loop, make_spec(seeds=[1, 2], n_iter=2, steps=5, cfg_scale=1))
    loop.cycle()
    loop.cycle()
    loop.interrupt(job, skip=True)
    [ended] = finish(loop, job)
    assert (ended.state, len(ended.pictures), job.status.skipped) == ("done", 2, True)
    np.testing.assert_array_equal(ended.pictures[1], draw(make_spec(seeds=[2], steps=5, cfg_scale=1))[0])


def test_a_cancelled_job_leaves_no_lane_and_no_open_program() -> None:
    for at in range(8):
        runner = FakeRunner()
        loop = make_loop(runner)
        job, other = start(loop, make_spec(seeds=[1, 2])), start(loop, make_spec(seeds=[3]))
        for _ in range(at + 1):
            loop.cycle()
        loop.cancel(job)
        assert job.status.state == "cancelled"
        assert not job.lanes
        assert len(runner.open_programs) <= 1, "only the other job's program may be alive"
        assert finish(loop, other)[0].state == "done"
        assert not runner.open_programs


def test_cancelling_a_queued_job_never_starts_it() -> None:
    runner = FakeRunner()
    loop = make_loop(runner, max_lanes=1)
    first, second = start(loop, make_spec()), start(loop, make_spec("second"))
    loop.cycle()
    loop.cancel(second)
    finish(loop, first)
    assert (second.status.state, second.status.started_at) == ("cancelled", None)


def test_a_faulty_job_fails_alone() -> None:
    runner = FakeRunner(poison="bad")
    loop = make_loop(runner)
    jobs = [start(loop, make_spec("bad" if i == 3 else f"good {i}", seeds=[i])) for i in range(8)]
    ended = finish(loop, *jobs)
    assert [one.state for one in ended] == ["failed" if i == 3 else "done" for i in range(8)]
    assert isinstance(ended[3].error, JobFailed)
    assert "poisoned" not in str(ended[3].error), "an exception's text may hold anything; it belongs into the log"
    for i in (0, 7):
        np.testing.assert_array_equal(ended[i].pictures[0], draw(make_spec(f"good {i}", seeds=[i]))[0])


def test_a_faulty_program_fails_its_own_job() -> None:
    loop = make_loop(FakeRunner())
    bad, good = start(loop, make_spec(sampler="no such sampler")), start(loop, make_spec())
    assert [one.state for one in finish(loop, bad, good)] == ["failed", "done"]


def test_out_of_memory_halves_the_batch_and_nobody_notices() -> None:
    runner = FakeRunner(fits=4)
    # Every batch takes the same time, so that larger ones pay.
    loop = Loop(runner, max_lanes=64, max_rows=64, exact=False, clock=count(step=0.01).__next__)
    ended = finish(loop, *[start(loop, make_spec(f"p {i}", seeds=[i], steps=40)) for i in range(8)])
    assert {one.state for one in ended} == {"done"}
    np.testing.assert_array_equal(ended[2].pictures[0], draw(make_spec("p 2", seeds=[2], steps=40))[0])
    sizes = [2 * len(ops) for ops in runner.denoise_batches]
    assert max(sizes) > 4, "the larger batch was tried"
    assert sizes.count(max(sizes)) == 1, "once it failed it is not tried again"


def test_what_does_not_fit_even_alone_fails_with_a_clear_error() -> None:
    loop = make_loop(FakeRunner(fits=1))
    [ended] = finish(loop, start(loop, make_spec()))
    assert isinstance(ended.error, OutOfDeviceMemory)


def test_jobs_beyond_the_lanes_wait_in_order() -> None:
    loop = make_loop(FakeRunner(), max_lanes=2)
    jobs = [start(loop, make_spec(seeds=[i])) for i in range(4)]
    loop.cycle()
    assert [job.status.state for job in jobs] == ["running", "running", "queued", "queued"]
    assert {one.state for one in finish(loop, *jobs)} == {"done"}


def test_a_job_wider_than_the_lanes_still_runs() -> None:
    loop = make_loop(FakeRunner(), max_lanes=2)
    [ended] = finish(loop, start(loop, make_spec(seeds=range(5))))
    assert len(ended.pictures) == 5


def test_progress_never_goes_back_and_ends_at_one() -> None:
    loop = make_loop(FakeRunner())
    job = start(loop, make_spec(seeds=range(4), n_iter=2))
    seen = []
    while not job.ended:
        loop.cycle()
        seen.append(job.status.fraction)
    assert seen == sorted(seen)
    assert (seen[0] < 0.2, seen[-1]) == (True, 1.0)


def test_work_is_seen_before_the_last_picture_has_begun() -> None:
    loop = make_loop(FakeRunner(), exact=True)
    job = start(loop, make_spec(seeds=range(4), sampler="Euler", steps=20))
    seen = []
    while not job.ended:
        loop.cycle()
        seen.append((job.status.step, job.status.worked))
    assert all(worked >= step for step, worked in seen)
    assert max(worked for step, worked in seen if step == 0) >= 10
    assert [worked for _, worked in seen] == sorted(worked for _, worked in seen)
    assert seen[-1][1] == 20


def test_a_batch_equals_its_pictures_made_one_by_one() -> None:
    together = draw(make_spec(seeds=[7, 8, 9], sampler="Euler a"))
    apart = [draw(make_spec(seeds=[seed], sampler="Euler a"))[0] for seed in (7, 8, 9)]
    np.testing.assert_array_equal(together, apart)


def test_masked_img2img_leaves_the_latent_outside_the_mask_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    mask = np.zeros((4, 4), np.float32)
    mask[:2] = 1
    for sampler in SAMPLERS:
        init = InitImage(pictures=(picture,), denoising_strength=0.8, latent_mask=mask)
        [drawn] = draw(make_spec(init=init, sampler=sampler))
        untouched = draw(make_spec(init=InitImage(pictures=(picture,), denoising_strength=0.0, latent_mask=mask * 0)))[
            0
        ]
        np.testing.assert_array_equal(drawn[16:], untouched[16:])
        assert (drawn[:16] != untouched[:16]).any()


def test_watchers_of_an_ended_job_still_get_its_result() -> None:
    import asyncio

    loop = make_loop(FakeRunner())
    job = start(loop, make_spec())
    finish(loop, job)

    async def watch(job: Job) -> list[str]:
        return [event.status.state async for event in job.events()]

    assert asyncio.run(watch(job)) == ["done"]
    assert len(outcome(job).pictures) == 1


def test_a_job_that_ended_long_ago_holds_no_picture() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    loop = make_loop(FakeRunner())
    job = start(loop, make_spec(init=InitImage(pictures=(picture,), denoising_strength=0.5)))
    finish(loop, job)
    before = job.status
    job.forget_result()
    assert job.last_event.pictures == ()
    assert isinstance(job.status.spec, JobSpec)
    assert job.status.spec.init is None
    assert (job.status.state, job.status.spec.passes) == (before.state, before.spec.passes)
    retouching = Job("retouching", RetouchSpec(picture=picture, work=Enlargement(upscaler="Twice")))
    retouching.end("done")
    retouching.forget_result()
    assert isinstance(retouching.status.spec, RetouchSpec)
    assert retouching.status.spec.picture.size == 0


def test_a_picture_of_another_size_is_stretched_as_a_latent() -> None:
    picture = np.full((64, 48, 3), 200, np.uint8)
    [drawn] = draw(make_spec(init=InitImage(pictures=(picture,), denoising_strength=0.5)))
    assert drawn.shape == (32, 32, 3)


def test_a_held_job_lets_others_pass_and_is_queued_once_it_is_released() -> None:
    loop = make_loop(FakeRunner())
    held = Job("held", make_spec())
    loop.hold(held)
    [other] = finish(loop, start(loop, make_spec(seeds=[2])))
    assert (held.status.state, other.state) == ("queued", "done")
    loop.release(held)
    assert finish(loop, held)[0].state == "done"


@pytest.mark.parametrize("end", ["cancel", "interrupt"])
def test_a_held_job_that_is_dropped_never_runs(end: str) -> None:
    loop = make_loop(FakeRunner())
    held = Job("held", make_spec())
    loop.hold(held)
    getattr(loop, end)(held)
    loop.release(held)
    finish(loop, start(loop, make_spec(seeds=[2])))
    assert held.status.state == "cancelled"
