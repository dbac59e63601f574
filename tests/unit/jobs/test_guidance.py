"""Guidance asks for the right rows and folds their answers exactly."""

from collections.abc import Generator

import pytest
import torch
from torch import Tensor

from darkroom.jobs.conditioning import Conditioning, Timed
from darkroom.jobs.guidance import Guidance, guided
from darkroom.jobs.ops import Cond, Denoise, Interrupted
from darkroom.jobs.spec import Model
from darkroom.prompt.schedule import Entry
from darkroom.sampling.schedules import NoiseTable
from darkroom.sampling.steps import Eval, Steps

TABLE = NoiseTable.scaled_linear()
CAT, DOG, NOTHING = (Cond(torch.full((77, 1), value)) for value in (1.0, 2.0, 0.0))


def always(cond: Cond) -> Timed:
    return Timed(entries=(Entry(2, ""),), conds=(cond,))


def make_guidance(scale: float, *parts: tuple[Timed, float]) -> Guidance:
    prompts = Conditioning(parts=parts or ((always(CAT), 1.0),), negative=always(NOTHING))
    return Guidance(model=Model(checkpoint="c"), table=TABLE, prompts=prompts, scale=scale, calls=2)


def two_steps() -> Steps:
    x = torch.zeros(4, 2, 2)
    x = yield Eval(x, TABLE.sigmas[700])
    x = yield Eval(x, TABLE.sigmas[300])
    return x


def run(steps: Steps, scale: float, positive: float, negative: float) -> tuple[Tensor, list[Denoise]]:
    job = guided(steps, make_guidance(scale))
    asked = [next(job)]
    try:
        while True:
            answers = [torch.full((4, 2, 2), value) for value in (positive, negative)]
            asked.append(job.send(answers[: len(asked[-1].rows)]))
    except StopIteration as end:
        return end.value.latent, asked


def test_guidance_moves_away_from_the_negative_prompt() -> None:
    latent, _ = run(two_steps(), scale=7.0, positive=1.0, negative=0.5)
    assert torch.equal(latent, torch.full((4, 2, 2), 0.5 + 7.0 * 0.5))


def test_the_first_row_is_the_positive_prompt_at_the_exact_timestep() -> None:
    _, asked = run(two_steps(), scale=7.0, positive=1.0, negative=0.5)
    assert [row.cond for row in asked[0].rows] == [CAT, NOTHING]
    assert [question.rows[0].timestep for question in asked] == [700.0, 300.0]
    assert [(question.step, question.steps) for question in asked] == [(0, 2), (1, 2)]


def test_scale_one_does_not_ask_for_what_cancels_out() -> None:
    latent, asked = run(two_steps(), scale=1.0, positive=1.0, negative=0.5)
    assert torch.equal(latent, torch.ones(4, 2, 2))
    assert {len(question.rows) for question in asked} == {1}


@pytest.mark.parametrize("scale", [0.0, -3.0])
def test_scales_at_and_below_zero_are_allowed(scale: float) -> None:
    latent, _ = run(two_steps(), scale=scale, positive=1.0, negative=0.5)
    assert torch.equal(latent, torch.full((4, 2, 2), 0.5 + scale * 0.5))


def test_an_interrupt_gives_the_last_unguided_estimate_and_closes_the_sampler() -> None:
    closed = []

    def watched() -> Generator[Eval, Tensor, Tensor]:
        try:
            return (yield from two_steps())
        finally:
            closed.append(True)

    job = guided(watched(), make_guidance(7.0))
    next(job)
    job.send([torch.ones(4, 2, 2), torch.zeros(4, 2, 2)])
    with pytest.raises(StopIteration) as end:
        job.throw(Interrupted())
    assert torch.equal(end.value.value.latent, torch.ones(4, 2, 2))
    assert end.value.value.interrupted
    assert closed == [True]


def test_the_parts_of_a_composed_prompt_pull_with_their_weights() -> None:
    guidance = make_guidance(2.0, (always(CAT), 1.0), (always(DOG), -0.25))
    assert [row.cond for row in guidance.question(Eval(torch.zeros(4, 2, 2), 1.0), 0).rows] == [CAT, DOG, NOTHING]
    cat, dog, nothing = (torch.full((1,), value) for value in (3.0, 5.0, 1.0))
    assert guidance.fold([cat, dog, nothing]).item() == 1.0 + 2.0 * (3.0 - 1.0) - 0.5 * (5.0 - 1.0)


def test_pulls_that_add_up_to_one_need_no_negative_prompt() -> None:
    guidance = make_guidance(2.0, (always(CAT), 0.25), (always(DOG), 0.25))
    assert [row.cond for row in guidance.question(Eval(torch.zeros(4, 2, 2), 1.0), 0).rows] == [CAT, DOG]
    assert guidance.fold([torch.full((1,), 3.0), torch.full((1,), 5.0)]).item() == 4.0


def test_an_edited_prompt_changes_after_its_call() -> None:
    edited = Timed(entries=(Entry(0, "a cat"), Entry(2, "a dog")), conds=(CAT, DOG))
    guidance = make_guidance(7.0, (edited, 1.0))
    x = torch.zeros(4, 2, 2)
    assert [guidance.question(Eval(x, 1.0), call).rows[0].cond for call in (0, 1, 2, 3)] == [CAT, DOG, DOG, CAT]
