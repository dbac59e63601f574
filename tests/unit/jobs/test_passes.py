"""How a pass is guided: which calls prompt editing counts, who refines it, what its text says of it."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.guidance import Sampled
from darkroom.jobs.ops import Cond, Denoise, EncodeText, Note, Op
from darkroom.jobs.passes import Pass, sample, timeline
from darkroom.jobs.spec import Adapter, GuidanceOptions, Hires, InitImage, JobSpec, Refiner, SdxlOptions, Traits
from darkroom.prompt.schedule import Timeline
from darkroom.sampling.names import get_sampler
from darkroom.sampling.options import Training
from darkroom.sampling.plan import plan_txt2img
from darkroom.sampling.steps import Eval, Steps
from darkroom.sampling.tables import NoiseTable
from tests.unit.engine.fake_runner import make_spec

TABLE = NoiseTable.scaled_linear()
HIRES = Hires(
    checkpoint="fake",
    size=(64, 64),
    upscaler="Latent",
    steps=5,
    denoising_strength=0.5,
    sampler="Euler",
    scheduler="Automatic",
    prompt="a dog",
    negative_prompt="",
    eta=1.0,
)
REFINER = Refiner(checkpoint="fine", title="fine [0123456789]", switch_at=0.5)


def make_pass(spec: JobSpec, *, sampler: str = "Euler", steps: int = 6, second: bool = False) -> Pass:
    chosen = get_sampler(sampler)
    return Pass(
        model=spec.model,
        prompts=Prompts(positive=spec.prompt, negative=spec.negative_prompt),
        table=TABLE,
        sampler=chosen,
        plan=plan_txt2img(TABLE, chosen, "Automatic", steps),
        steps=steps,
        second=second,
    )


def stepping(*timesteps: int) -> Steps:
    x = torch.zeros(4, 2, 2)
    for timestep in timesteps:
        x = yield Eval(x, TABLE.sigmas[timestep])
    return x


def run(spec: JobSpec, one: Pass, *timesteps: int) -> tuple[Sampled, list[Op]]:
    """What the pass came to, and all that it said; every BREAK of a prompt makes its encoding longer."""
    job = sample(spec, one, stepping(*timesteps))
    said: list[Op] = []
    answer: object = None
    try:
        while True:
            said.append(job.send(answer))
            match said[-1]:
                case EncodeText(texts=texts):
                    answer = [Cond(torch.zeros(77 * (1 + text.count("BREAK")), 4)) for text in texts]
                case Denoise(rows=rows):
                    answer = [row.x for row in rows]
                case _:
                    answer = None
    except StopIteration as end:
        sampled: Sampled = end.value
        return sampled, said


def notes(said: list[Op]) -> list[tuple[str, object]]:
    return [(op.key, op.value) for op in said if isinstance(op, Note)]


def checkpoints(said: list[Op]) -> list[str]:
    return [op.model.checkpoint for op in said if isinstance(op, Denoise)]


def test_samplers_of_second_order_are_expected_to_make_twice_the_calls() -> None:
    spec = make_spec(sampler="Euler")
    assert timeline(spec, make_pass(spec)) == Timeline(steps=6)
    assert timeline(spec, make_pass(spec, sampler="Heun")) == Timeline(steps=12)


def test_a_second_pass_counts_on_from_the_calls_of_the_first() -> None:
    spec = replace(make_spec(sampler="Heun", steps=6), hires=HIRES, old_prompt_editing=True)
    assert timeline(spec, make_pass(spec, steps=5, second=True)) == Timeline(steps=5, first_pass=12, old_rules=True)


def test_the_refiner_encodes_the_prompts_anew_and_goes_on() -> None:
    spec = replace(make_spec(), refiner=REFINER)
    sampled, said = run(spec, make_pass(spec), 999, 400)
    assert checkpoints(said) == ["fake", "fine"]
    assert [op.model.checkpoint for op in said if isinstance(op, EncodeText)] == ["fake", "fake", "fine", "fine"]
    assert notes(said) == [("Refiner", "fine [0123456789]"), ("Refiner switch at", 0.5)]
    assert sampled.model == replace(spec.model, checkpoint="fine")


def test_sdxls_refiner_is_told_scores_in_the_place_of_a_second_size() -> None:
    refined = replace(make_spec(), traits=Traits(family="sdxl"), sdxl=SdxlOptions(high_score=8.0))
    spec = replace(refined, refiner=replace(REFINER, traits=Traits(family="refiner")))
    sampled, said = run(spec, make_pass(spec), 999, 400)
    size = (spec.height, spec.width)
    told = [op.numbers for op in said if isinstance(op, EncodeText)]
    assert told == [(*size, 0, 0, *size), (*size, 0, 0, *size), (*size, 0, 0, 8.0), (*size, 0, 0, 2.5)]
    assert sampled.model.traits.family == "refiner"


def test_a_refiner_of_other_noise_is_told_its_own_timesteps() -> None:
    other = Traits(training=Training(start=0.001, end=0.02))
    spec = replace(make_spec(), refiner=replace(REFINER, traits=other))
    _, said = run(spec, make_pass(spec), 999, 400)
    first, second = (op.rows[0] for op in said if isinstance(op, Denoise))
    assert (first.timestep, second.sigma) == (999, TABLE.sigmas[400])
    assert second.timestep < 400


def test_a_refiner_that_is_the_checkpoint_itself_is_none() -> None:
    spec = replace(make_spec(), refiner=replace(REFINER, checkpoint="fake"))
    _, said = run(spec, make_pass(spec), 999, 400)
    assert notes(said) == []


@pytest.mark.parametrize(
    ("passes", "first", "second"),
    [("second pass", False, True), ("first pass", True, False), ("both passes", True, True)],
)
def test_a_job_of_two_passes_is_refined_in_those_that_were_asked_for(
    passes: Literal["first pass", "second pass", "both passes"], first: bool, second: bool
) -> None:
    spec = replace(make_spec(), hires=HIRES, refiner=replace(REFINER, passes=passes))
    for later, refined in ((False, first), (True, second)):
        _, said = run(spec, make_pass(spec, second=later), 999, 400)
        assert ("fine" in checkpoints(said)) == refined
        assert (("Hires refiner", passes) in notes(said)) == (refined and passes != "second pass")


def test_the_second_pass_may_be_told_in_the_words_of_the_first() -> None:
    spec = replace(make_spec(), adapters=(Adapter(name="early"),))
    later = replace(spec.model, adapters=(Adapter(name="late"),))
    for early_texts, name in ((True, "early"), (False, "late")):
        told = replace(spec, hires=replace(HIRES, early_texts=early_texts))
        _, said = run(told, replace(make_pass(told, second=True), model=later), 400)
        assert {op.model.adapters[0].name for op in said if isinstance(op, EncodeText)} == {name}
        assert {op.model.adapters[0].name for op in said if isinstance(op, Denoise)} == {"late"}


def test_shares_of_an_img2img_pass_count_the_steps_that_are_made() -> None:
    picture = InitImage(pictures=(), denoising_strength=0.5)
    spec = replace(make_spec(steps=6, init=picture), refiner=replace(REFINER, by_steps=True))
    _, said = run(spec, make_pass(spec), 500, 400, 300, 200)
    assert checkpoints(said) == ["fake", "fake", "fine", "fine"]


def test_padding_is_noted_when_the_pass_ends() -> None:
    options = GuidanceOptions(pad_v0=True, s_min_uncond=15, s_min_uncond_all=True)
    spec = replace(make_spec("a BREAK b"), guidance=options)
    _, said = run(spec, make_pass(spec), 999, 400)
    assert [key for key, _ in notes(said)] == ["NGMS", "NGMS all steps", "Pad conds v0"]


def test_the_sampler_may_divide_the_guidance_scale() -> None:
    spec = make_spec(cfg_scale=12.5, sampler="DDIM CFG++")
    _, said = run(spec, make_pass(spec, sampler="DDIM CFG++"), 400)
    assert [len(op.rows) for op in said if isinstance(op, Denoise)] == [1]
