"""Prompts become conditionings of the right length, whatever the lengths of their texts."""

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.jobs.conditioning import Conditioning, Prompts, conditioning, numbers_beside
from darkroom.jobs.ops import Answer, Cond, EncodeText, Op
from darkroom.jobs.spec import Adapter, Family, GuidanceOptions, JobSpec, Model, SdxlOptions, Traits
from darkroom.prompt.schedule import Timeline
from tests.unit.engine.fake_runner import make_spec

MODEL = Model(checkpoint="c", adapters=(Adapter(name="style"),))


def encode(op: EncodeText) -> list[Cond]:
    """77 vectors for every BREAK and one more; the n-th vector is (n, characters of the text), what lies beside it the
    numbers that came with the text.
    """
    found = []
    for text in op.texts:
        length = 77 * (1 + max(other.count("BREAK") for other in op.texts))
        places = torch.arange(length, dtype=torch.float32)
        context = torch.stack([places, torch.full((length,), float(len(text)))], dim=1)
        found.append(Cond(context, torch.tensor(op.numbers) if op.numbers else None))
    return found


def run(job: Generator[Op, Answer, Conditioning]) -> tuple[Conditioning, list[EncodeText]]:
    asked: list[EncodeText] = []
    answer = None
    try:
        while True:
            op = job.send(answer)
            assert isinstance(op, EncodeText)
            asked.append(op)
            answer = encode(op)
    except StopIteration as end:
        found: Conditioning = end.value
        return found, asked


def make(positive: str, negative: str, guidance: GuidanceOptions | None = None) -> Conditioning:
    return run(conditioning(job(guidance), MODEL, Prompts(positive=positive, negative=negative), Timeline(steps=10)))[0]


def job(guidance: GuidanceOptions | None) -> JobSpec:
    return replace(make_spec(), guidance=guidance or GuidanceOptions())


def places(cond: Cond) -> list[int]:
    return [int(vector[0]) for vector in cond.context]


def test_the_shorter_part_of_a_composed_prompt_repeats_its_last_vector() -> None:
    found = make("a AND b BREAK c:0.5", "")
    (short, one), (long, half) = found.parts
    assert (one, half) == (1.0, 0.5)
    assert places(short.at(0)) == [*range(77), *[76] * 77]
    assert places(long.at(0)) == [*range(154)]


def test_prompts_of_unequal_length_are_left_alone_unless_asked() -> None:
    found = make("a BREAK b", "c")
    assert found.parts[0][0].length == 154
    assert found.negative.length == 77
    assert found.padding is None


def test_the_old_padding_repeats_the_last_vector_of_a_shorter_negative_prompt() -> None:
    found = make("a BREAK b", "c", GuidanceOptions(pad_v0=True, pad=True))
    assert places(found.negative.at(0)) == [*range(77), *[76] * 77]
    assert found.padding == "Pad conds v0"


def test_the_old_padding_cuts_a_longer_negative_prompt() -> None:
    found = make("a", "b BREAK c", GuidanceOptions(pad_v0=True))
    assert places(found.negative.at(0)) == [*range(77)]
    assert found.parts[0][0].length == 77


def test_padding_appends_the_encoding_of_no_text_to_the_shorter_prompt() -> None:
    long = make("a BREAK b BREAK c", "d", GuidanceOptions(pad=True))
    assert places(long.negative.at(0)) == [*range(77)] * 3
    assert long.negative.at(0).context[:, 1].tolist() == [1.0] * 77 + [0.0] * 154
    short = make("a AND b", "c BREAK d", GuidanceOptions(pad=True))
    assert [part.length for part, _ in short.parts] == [154, 154]
    assert short.negative.length == 154
    assert long.padding == short.padding == "Pad conds"


def test_no_text_is_encoded_without_adapters_and_only_where_it_is_needed() -> None:
    spec = job(GuidanceOptions(pad=True))
    prompts = Prompts(positive="a BREAK b", negative="c")
    _, asked = run(conditioning(spec, MODEL, prompts, Timeline(steps=10)))
    assert [(op.texts, len(op.model.adapters)) for op in asked] == [(("a BREAK b",), 1), (("c",), 1), (("",), 0)]
    _, asked = run(conditioning(spec, MODEL, Prompts(positive="a", negative="c"), Timeline(steps=10)))
    assert len(asked) == 2


def test_all_texts_of_an_edited_prompt_are_encoded_together() -> None:
    prompts = Prompts(positive="<lora:x:1>a [b:c:3] AND [d|e]", negative="f AND [g:h:0.5]")
    _, asked = run(conditioning(job(None), MODEL, prompts, Timeline(steps=4)))
    assert [op.texts for op in asked] == [("a b", "a c"), (" d", " e", " d", " e"), ("f AND g", "f AND h")]


@given(st.integers(8, 4096), st.integers(8, 4096), st.integers(0, 512), st.integers(0, 512))
def test_sdxl_is_told_sizes_and_cropping_height_and_top_first(height: int, width: int, top: int, left: int) -> None:
    options = SdxlOptions(crop_top=top, crop_left=left)
    for negative in (False, True):
        told = numbers_beside("sdxl", (height, width), options, negative=negative)
        assert told == (height, width, top, left, height, width)


def test_the_refiner_is_told_how_well_a_picture_is_liked() -> None:
    options = SdxlOptions(crop_left=32, high_score=7.0, low_score=1.5)
    assert numbers_beside("refiner", (64, 96), options) == (64, 96, 0, 32, 7.0)
    assert numbers_beside("refiner", (64, 96), options, negative=True) == (64, 96, 0, 32, 1.5)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sd3", "flux"])
def test_other_families_are_told_the_text_alone(family: Family) -> None:
    assert numbers_beside(family, (64, 64), SdxlOptions(crop_top=9)) == ()


LARGE = Model(checkpoint="c", traits=Traits(family="sdxl"))


def test_the_negative_prompt_is_named_as_such_and_the_encoding_of_no_text_is_not() -> None:
    prompts = Prompts(positive="a BREAK b AND c", negative="d")
    _, asked = run(conditioning(job(GuidanceOptions(pad=True)), LARGE, prompts, Timeline(steps=10), (48, 64)))
    assert [op.texts for op in asked if op.negative] == [("d",)]
    assert {op.numbers for op in asked} == {(48, 64, 0, 0, 48, 64)}
    assert len(asked) == 4


def test_clip_skip_reaches_sdxl_where_it_is_to_act_on_its_first_encoder() -> None:
    spec = replace(job(None), sdxl=SdxlOptions(clip_l_skip=True), clip_skip=3)
    _, asked = run(conditioning(spec, LARGE, Prompts(positive="a", negative=""), Timeline(steps=10)))
    assert {(op.clip_skip, op.sdxl_clip_l_skip) for op in asked} == {(3, True)}


@pytest.mark.parametrize("guidance", [GuidanceOptions(), GuidanceOptions(pad=True), GuidanceOptions(pad_v0=True)])
def test_what_lies_beside_a_text_is_left_alone_when_its_length_changes(guidance: GuidanceOptions) -> None:
    prompts = Prompts(positive="a AND b BREAK c BREAK d", negative="e")
    found, _ = run(conditioning(job(guidance), LARGE, prompts, Timeline(steps=10), (48, 64)))
    for timed in (*(part for part, _ in found.parts), found.negative):
        vector = timed.at(0).vector
        assert vector is not None
        assert vector.tolist() == [48, 64, 0, 0, 48, 64]
    assert {part.length for part, _ in found.parts} == {231}
