"""Progress is exact: whatever the sampler, it never goes back, never stands at its end too early, and ends at 1."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.engine.client import JobStatus
from darkroom.engine.job import Job
from darkroom.jobs.ops import Denoise
from darkroom.jobs.spec import JobSpec
from darkroom.sampling.course import Course, count_calls
from darkroom.sampling.names import SAMPLERS, get_sampler
from darkroom.sampling.plan import plan_txt2img
from darkroom.sampling.steps import Eval, Knobs
from darkroom.sampling.tables import noise_table
from tests.unit.engine.fake_runner import FakeRunner, make_loop, make_spec

NAMES = [sampler.name for sampler in SAMPLERS]


def watch(spec: JobSpec) -> tuple[list[JobStatus], FakeRunner]:
    """The job's status after every turn of the loop."""
    runner = FakeRunner()
    loop, job = make_loop(runner), Job("job", spec)
    loop.add(job)
    seen = []
    while not job.ended:
        loop.cycle()
        seen.append(job.status)
    return seen, runner


@pytest.mark.parametrize("steps", [4, 11, 40])
@pytest.mark.parametrize("name", NAMES)
def test_progress_only_grows_and_ends_at_one(name: str, steps: int) -> None:
    seen, _ = watch(make_spec(sampler=name, steps=steps))
    fractions = [status.fraction for status in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert seen[-1].state == "done"
    assert [status.step for status in seen[:-2]] == sorted(status.step for status in seen[:-2])
    assert all(0 <= status.step <= status.steps for status in seen)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"DPM adaptive"}))
def test_every_question_is_as_large_a_part_of_the_way(name: str) -> None:
    _, runner = watch(make_spec(sampler=name, steps=20))
    steps = [op.step for [op] in runner.denoise_batches if isinstance(op, Denoise)]
    calls = len(steps)
    assert steps == [call * 20 // calls for call in range(calls)]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"DPM adaptive"}))
@settings(max_examples=10, deadline=None)
@given(steps=st.integers(4, 60))
def test_the_questions_are_counted_beforehand(name: str, steps: int) -> None:
    sampler, spec = get_sampler(name), make_spec(sampler=name, steps=steps)
    plan = plan_txt2img(noise_table(spec.sampling, sampler), sampler, "Automatic", steps)
    _, runner = watch(spec)
    assert count_calls(sampler, plan.sigmas, Knobs()) == len(runner.denoise_batches)


def test_two_batches_are_two_halves() -> None:
    seen, _ = watch(make_spec(sampler="Heun", steps=5, seeds=(1, 2, 3, 4), n_iter=2))
    fractions = [status.fraction for status in seen]
    assert fractions == sorted(fractions)
    assert next(status.fraction for status in seen if status.iteration == 1) == 0.5


def test_a_sampler_that_chooses_its_steps_is_measured_by_its_noise() -> None:
    course = Course(steps=10, calls=None, high=10.0, low=0.1)
    x = make_spec()
    assert [course.step(Eval(x, sigma), 99) for sigma in (20.0, 10.0, 1.0, 0.1, 0.0)] == [0, 0, 5, 9, 9]  # type: ignore[arg-type]


@given(call=st.integers(0, 500), steps=st.integers(0, 99), calls=st.integers(0, 300))
def test_a_step_is_always_one_of_the_steps(call: int, steps: int, calls: int) -> None:
    step = Course(steps=steps, calls=calls).step(Eval(None, 1.0), call)  # type: ignore[arg-type]
    assert 0 <= step <= max(steps - 1, 0)


def test_an_img2img_pass_counts_the_steps_that_it_makes() -> None:
    spec = make_spec(sampler="DPM++ SDE", steps=20)
    assert watch(replace(spec, steps=7))[0][-1].steps == 7
