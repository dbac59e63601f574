"""What turns out while a picture is made goes with it."""

from dataclasses import replace

from darkroom.jobs.spec import GuidanceOptions, Refiner
from tests.unit.engine.fake_runner import FakeRunner, finish, make_loop, make_spec, start

REFINER = Refiner(checkpoint="fine", title="fine [0123456789]", switch_at=0.5)


def test_every_picture_of_a_job_brings_its_notes() -> None:
    loop = make_loop(FakeRunner())
    job = start(loop, replace(make_spec(seeds=(1, 2)), refiner=REFINER))
    assert finish(loop, job)[0].state == "done"
    expected = (("Refiner", "fine [0123456789]"), ("Refiner switch at", 0.5))
    assert [finished.notes for finished in job.last_event.pictures] == [expected, expected]


def test_most_pictures_bring_no_notes() -> None:
    loop = make_loop(FakeRunner())
    job = start(loop, make_spec())
    finish(loop, job)
    assert [finished.notes for finished in job.last_event.pictures] == [()]


def test_an_interrupted_picture_brings_what_was_noted_so_far() -> None:
    loop = make_loop(FakeRunner())
    options = GuidanceOptions(skip_early=0.1)
    job = start(loop, replace(make_spec(), guidance=options, refiner=replace(REFINER, switch_at=0.9)))
    while not job.lanes or job.lanes[0].step < 2:
        loop.cycle()
    loop.interrupt(job)
    assert finish(loop, job)[0].state == "interrupted"
    assert job.last_event.pictures[0].notes == (("Skip Early CFG", 0.1),)
