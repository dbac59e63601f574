"""Guidance asks for the right rows and folds their answers exactly."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darkroom.jobs.conditioning import Conditioning, Timed
from darkroom.jobs.guidance import Guidance, Handover, Sampled, guided
from darkroom.jobs.ops import Answer, Cond, Denoise, Interrupted, Note, Op
from darkroom.jobs.spec import GuidanceOptions, Model, Refiner
from darkroom.prompt.schedule import Entry
from darkroom.sampling.course import Course
from darkroom.sampling.steps import Eval, Steps
from darkroom.sampling.tables import NoiseTable

TABLE = NoiseTable.scaled_linear()
CAT, DOG, NOTHING = (Cond(torch.full((77, 1), value)) for value in (1.0, 2.0, 0.0))
COURSE = Course(steps=2, calls=2)


def always(cond: Cond) -> Timed:
    return Timed(entries=(Entry(2, ""),), conds=(cond,))


def make_guidance(scale: float, *parts: tuple[Timed, float], **others: Any) -> Guidance:
    prompts = Conditioning(parts=parts or ((always(CAT), 1.0),), negative=always(NOTHING))
    base = Guidance(model=Model(checkpoint="c"), table=TABLE, prompts=prompts, scale=scale, course=COURSE, expected=2)
    return replace(base, **others)


def at(sigma: float, *, pair: bool = False) -> Eval:
    return Eval(torch.zeros(4, 2, 2), sigma, pair)


def conds(guidance: Guidance, asked: Eval, call: int = 0) -> list[Cond]:
    return [row.cond for row in guidance.question(asked, call).rows]


def scalars(*values: float) -> list[Tensor]:
    return [torch.full((1,), value) for value in values]


def two_steps() -> Steps:
    x = torch.zeros(4, 2, 2)
    x = yield Eval(x, TABLE.sigmas[700])
    x = yield Eval(x, TABLE.sigmas[300])
    return x


def run(steps: Steps, scale: float, positive: float, negative: float) -> tuple[Tensor, list[Denoise]]:
    sampled, said = drive(guided(steps, make_guidance(scale)), positive, negative)
    return sampled.latent, [op for op in said if isinstance(op, Denoise)]


def drive(job: Generator[Op, Answer, Sampled], positive: float, negative: float) -> tuple[Sampled, list[Op]]:
    """Answer every question with flat pictures; what the job came to, and all that it said."""
    said = [next(job)]
    try:
        while True:
            answers = [torch.full((4, 2, 2), value) for value in (positive, negative)]
            last = said[-1]
            said.append(job.send(answers[: len(last.rows)] if isinstance(last, Denoise) else None))
    except StopIteration as end:
        sampled: Sampled = end.value
        return sampled, said


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
    assert conds(guidance, at(1.0)) == [CAT, DOG, NOTHING]
    assert guidance.fold(scalars(3.0, 5.0, 1.0), at(1.0), 0).item() == 1.0 + 2.0 * (3.0 - 1.0) - 0.5 * (5.0 - 1.0)


def test_pulls_that_add_up_to_one_need_no_negative_prompt() -> None:
    guidance = make_guidance(2.0, (always(CAT), 0.25), (always(DOG), 0.25))
    assert conds(guidance, at(1.0)) == [CAT, DOG]
    assert guidance.fold(scalars(3.0, 5.0), at(1.0), 0).item() == 4.0


def test_an_edited_prompt_changes_after_its_call() -> None:
    edited = Timed(entries=(Entry(0, "a cat"), Entry(2, "a dog")), conds=(CAT, DOG))
    guidance = make_guidance(7.0, (edited, 1.0))
    assert [conds(guidance, at(1.0), call)[0] for call in (0, 1, 2, 3)] == [CAT, DOG, DOG, CAT]


WEIGHTS = st.lists(st.floats(-2, 2), min_size=1, max_size=3)
X0 = st.floats(-4, 4)


@given(WEIGHTS, st.floats(-20, 20), X0, st.data())
def test_guidance_is_the_formula_whether_or_not_the_negative_prompt_is_asked(
    weights: list[float], scale: float, negative: float, data: st.DataObject
) -> None:
    guidance = make_guidance(scale, *((always(CAT), weight) for weight in weights))
    parts = [data.draw(X0) for _ in weights]
    answers = scalars(*parts, negative)[: len(guidance.question(at(1.0), 0).rows)]
    expected = negative + sum(scale * weight * (part - negative) for part, weight in zip(parts, weights, strict=True))
    assert guidance.fold(answers, at(1.0), 0).item() == pytest.approx(expected, abs=2e-3)


def rows_per_call(options: GuidanceOptions, sigma: float, **others: Any) -> list[int]:
    guidance = make_guidance(7.0, options=options, **others)
    return [len(guidance.question(at(sigma), call).rows) for call in range(4)]


def test_below_a_noise_level_every_second_call_leaves_the_negative_prompt_out() -> None:
    options = GuidanceOptions(s_min_uncond=2.0)
    assert rows_per_call(options, 1.99) == [2, 1, 2, 1]
    assert rows_per_call(options, 2.0) == [2, 2, 2, 2]
    assert rows_per_call(replace(options, s_min_uncond_all=True), 1.99) == [1, 1, 1, 1]


def test_the_timestep_family_compares_its_timestep_instead_of_the_noise_level() -> None:
    sigma = TABLE.sigmas[3]
    assert rows_per_call(GuidanceOptions(s_min_uncond=4.0), sigma, family="timestep") == [2, 1, 2, 1]
    assert rows_per_call(GuidanceOptions(s_min_uncond=3.0), sigma, family="timestep") == [2, 2, 2, 2]


def test_an_early_share_of_the_calls_leaves_the_negative_prompt_out() -> None:
    assert rows_per_call(GuidanceOptions(skip_early=0.5), 9.0, expected=4) == [1, 1, 1, 2]
    assert rows_per_call(GuidanceOptions(skip_early=0.0), 9.0, expected=4) == [2, 2, 2, 2]


def test_where_the_negative_prompt_is_skipped_the_first_part_stands_in_at_scale_one() -> None:
    guidance = make_guidance(7.0, (always(CAT), 0.5), (always(DOG), 2.0), options=GuidanceOptions(skip_early=1.0))
    assert conds(guidance, at(1.0)) == [CAT, DOG]
    assert guidance.fold(scalars(3.0, 4.0), at(1.0), 0).item() == 3.0 + 2.0 * (4.0 - 3.0)


def test_what_was_skipped_is_noted_once() -> None:
    options = GuidanceOptions(s_min_uncond=5.0, s_min_uncond_all=True, skip_early=0.1)
    _, said = drive(guided(descending(400, 300, 200), make_guidance(7.0, options=options)), 1.0, 0.5)
    assert [(note.key, note.value) for note in said if isinstance(note, Note)] == [
        ("Skip Early CFG", 0.1),
        ("NGMS", 5.0),
        ("NGMS all steps", True),
    ]


def depths(guidance: Guidance, calls: int) -> list[str]:
    """For every call, whether each of its rows skips the inner layers (s) or has them compute (c)."""
    found = []
    for call in range(calls):
        rows = guidance.question(at(1.0), call).rows
        for row in rows:
            assert row.kept is not None
            if not row.is_shallow:
                row.kept.features = torch.zeros(1)
        found.append("".join("s" if row.is_shallow else "c" for row in rows))
    return found


def test_the_inner_layers_answer_one_of_several_calls() -> None:
    options = GuidanceOptions(deep_cache=3)
    assert depths(make_guidance(7.0, options=options), 7) == ["cc", "ss", "ss", "cc", "ss", "ss", "cc"]


def test_the_inner_layers_answer_for_another_text_and_for_a_row_that_was_left_out() -> None:
    edited = Timed(entries=(Entry(2, ""), Entry(4, "")), conds=(CAT, DOG))
    guidance = make_guidance(7.0, (edited, 1.0), options=GuidanceOptions(deep_cache=8))
    assert depths(guidance, 4) == ["cc", "ss", "ss", "cs"]
    options = GuidanceOptions(deep_cache=4, skip_early=0.5)
    assert depths(make_guidance(7.0, options=options, expected=4), 5) == ["c", "s", "s", "sc", "cc"]


def test_nothing_is_kept_unless_asked_for_nor_skipped_where_nothing_was_found() -> None:
    assert all(row.kept is None for row in make_guidance(7.0).question(at(1.0), 0).rows)
    guidance = make_guidance(7.0, options=GuidanceOptions(deep_cache=3))
    assert not any(row.is_shallow for call in range(3) for row in guidance.question(at(1.0), call).rows)


def test_a_pair_is_the_guided_estimate_over_the_negative_prompts_own() -> None:
    asked = at(1.0, pair=True)
    guidance = make_guidance(1.0)
    assert conds(guidance, asked) == [CAT, NOTHING]
    assert guidance.fold(scalars(3.0, 1.0), asked, 0).flatten().tolist() == [3.0, 1.0]
    skipping = make_guidance(7.0, options=GuidanceOptions(skip_early=1.0))
    assert conds(skipping, asked) == [CAT]
    assert skipping.fold(scalars(3.0), asked, 0).flatten().tolist() == [3.0, 3.0]


def test_a_picture_guides_beside_the_prompt() -> None:
    options = GuidanceOptions(image_scale=1.5, skip_early=1.0)
    guidance = make_guidance(7.0, image=torch.ones(4, 2, 2), options=options)
    rows = guidance.question(at(1.0), 0).rows
    assert [row.cond for row in rows] == [CAT, NOTHING, NOTHING]
    assert [float(row.image.sum()) for row in rows if row.image is not None] == [16.0, 16.0, 0.0]
    folded = guidance.fold(scalars(5.0, 2.0, 1.0), at(1.0), 0)
    assert folded.item() == 1.0 + 7.0 * (5.0 - 2.0) + 1.5 * (2.0 - 1.0)
    assert guidance.skipped(at(1.0), 0) == []


@pytest.mark.parametrize("scale", [None, 1.0])
def test_an_image_scale_of_one_is_ordinary_guidance(scale: float | None) -> None:
    image = torch.ones(4, 2, 2)
    guidance = make_guidance(7.0, image=image, options=GuidanceOptions(image_scale=scale))
    rows = guidance.question(at(1.0), 0).rows
    assert [row.cond for row in rows] == [CAT, NOTHING]
    assert all(row.image is image for row in rows)


def descending(*timesteps: int) -> Steps:
    x = torch.zeros(4, 2, 2)
    for timestep in timesteps:
        x = yield Eval(x, TABLE.sigmas[timestep])
    return x


def handover(switch_at: float | None, *, by_steps: bool = False) -> Handover:
    def begin() -> Generator[Op, Answer, Guidance]:
        yield Note("encoded", True)
        return make_guidance(7.0, model=Model(checkpoint="refiner"))

    refiner = Refiner(checkpoint="refiner", switch_at=switch_at, by_steps=by_steps)
    return Handover(refiner=refiner, notes=(Note("Refiner", "r"),), begin=begin)


def who_and_what(said: list[Op]) -> list[str]:
    """The checkpoint of every evaluation, and the keys of the notes between them."""
    found = []
    for op in said:
        if isinstance(op, Denoise):
            found.append(op.model.checkpoint)
        elif isinstance(op, Note):
            found.append(op.key)
    return found


def test_the_refiner_takes_over_when_enough_noise_is_gone() -> None:
    job = guided(descending(999, 500, 499, 100), make_guidance(7.0), handover(0.5))
    sampled, said = drive(job, 1.0, 0.5)
    assert who_and_what(said) == ["c", "c", "Refiner", "encoded", "refiner", "refiner"]
    assert sampled.model.checkpoint == "refiner"


def test_the_refiner_takes_over_after_a_share_of_the_calls() -> None:
    job = guided(descending(999, 998, 997), make_guidance(7.0, expected=4), handover(0.5, by_steps=True))
    assert who_and_what(drive(job, 1.0, 0.5)[1]) == ["c", "c", "Refiner", "encoded", "refiner"]


def test_the_timestep_family_switches_by_its_timestep() -> None:
    guidance = make_guidance(7.0, family="timestep")
    assert guidance.progress(at(TABLE.sigmas[201]), 0, by_steps=False) == 0.798
    assert handover(0.798).is_due(guidance, at(TABLE.sigmas[201]), 0)
    assert not handover(0.8).is_due(guidance, at(TABLE.sigmas[201]), 0)


def test_a_refiner_without_a_switch_takes_over_at_once() -> None:
    job = guided(descending(999, 500), make_guidance(7.0), handover(None))
    assert who_and_what(drive(job, 1.0, 0.5)[1]) == ["Refiner", "encoded", "refiner", "refiner"]


def test_a_refiner_that_is_never_due_changes_nothing() -> None:
    sampled, said = drive(guided(descending(999, 500), make_guidance(7.0), handover(0.9)), 1.0, 0.5)
    assert who_and_what(said) == ["c", "c"]
    assert sampled.model.checkpoint == "c"


@given(st.integers(0, 999), st.floats(-0.4, 0.4))
def test_progress_is_counted_by_the_nearest_level_of_the_table(timestep: int, aside: float) -> None:
    sigmas = TABLE.sigmas
    neighbour = sigmas[min(max(timestep + (1 if aside > 0 else -1), 0), 999)]
    sigma = sigmas[timestep] + abs(aside) * (neighbour - sigmas[timestep])
    assert make_guidance(7.0).progress(at(sigma), 0, by_steps=False) == (999 - timestep) / 1000
