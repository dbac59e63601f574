from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.jobs.infotext import VERSION, Shown, read, write
from darkroom.jobs.spec import CheckpointInfo, InitImage, JobSpec

MODEL = CheckpointInfo(
    key="m", filename="/m/x/foo-v1.safetensors", path="x/foo-v1.safetensors", sha256="3e5ef91767" * 6
)

SPEC = JobSpec(
    kind="txt2img",
    checkpoint="m",
    prompt="a cat",
    negative_prompt="",
    width=64,
    height=72,
    steps=3,
    cfg_scale=7.0,
    sampler="Euler",
    scheduler="Automatic",
    seeds=(5, 6),
    subseeds=(8, 9),
    batch_size=2,
)


def last_line(spec: JobSpec, index: int = 0) -> str:
    return write(spec, MODEL, index).split("\n")[-1]


def test_the_text_has_the_entries_of_the_format_in_order() -> None:
    assert write(SPEC, MODEL, 1) == (
        "a cat\nSteps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 6, Size: 64x72, "
        f"Model hash: 3e5ef91767, Model: foo-v1, Version: {VERSION}"
    )


def test_a_negative_prompt_gets_a_line() -> None:
    text = write(replace(SPEC, negative_prompt="dog,\nblurry"), MODEL, 0)
    assert text.startswith("a cat\nNegative prompt: dog,\nblurry\nSteps: 3")


def test_an_empty_prompt_leaves_no_empty_line() -> None:
    assert write(replace(SPEC, prompt=""), MODEL, 0).startswith("Steps: 3")
    assert write(replace(SPEC, prompt="", negative_prompt="x"), MODEL, 0).startswith("Negative prompt: x\nSteps")


@pytest.mark.parametrize(
    ("sampler", "scheduler", "label"),
    [
        ("Euler", "Automatic", "Automatic"),
        ("Euler", "Karras", "Karras"),
        ("DPM++ 2M", "Automatic", "Karras"),
        ("DPM++ 2M SDE", "Automatic", "Exponential"),
        ("DDIM", "Karras", "Karras"),
    ],
)
def test_the_schedule_is_the_one_in_effect(sampler: str, scheduler: str, label: str) -> None:
    assert f"Schedule type: {label}," in last_line(replace(SPEC, sampler=sampler, scheduler=scheduler))


def test_a_checkpoint_whose_hash_is_unknown_has_none() -> None:
    assert "Model hash" not in write(SPEC, replace(MODEL, sha256=None), 0)


def test_optional_entries_can_be_left_out() -> None:
    text = write(SPEC, MODEL, 0, Shown(model_name=False, model_hash=False, version=False))
    assert text.endswith("Size: 64x72")


def test_everything_unusual_is_told_in_order() -> None:
    init = InitImage(pictures=(np.zeros((72, 64, 3), dtype=np.uint8),), denoising_strength=0.75)
    spec = replace(
        SPEC,
        kind="img2img",
        sampler="Euler a",
        eta=1.0,
        init=init,
        subseed_strength=0.3,
        seed_resize_from=(96, 64),
        clip_skip=2,
        seed_delta=31337,
        noise_source="NV",
        params=(("Denoising strength", "0.75"), ("Mask blur", "4"), ("Lora hashes", "a: b, c: d"), ("Odd", "Odd")),
    )
    assert last_line(spec, 1).split("Model: foo-v1, ")[1] == (
        "Variation seed: 9, Variation seed strength: 0.3, Seed resize from: 64x96, Denoising strength: 0.75, "
        f'Clip skip: 2, ENSD: 31337, RNG: NV, Mask blur: 4, Lora hashes: "a: b, c: d", Odd, Version: {VERSION}'
    )


@pytest.mark.parametrize(("sampler", "eta"), [("Euler", 1.0), ("Euler a", 0.0)])
def test_a_seed_delta_without_use_is_not_told(sampler: str, eta: float) -> None:
    assert "ENSD" not in last_line(replace(SPEC, sampler=sampler, eta=eta, seed_delta=31337))


def test_an_entry_that_is_there_already_keeps_its_place() -> None:
    line = last_line(replace(SPEC, params=(("Schedule type", "Beta"),)))
    assert line.startswith("Steps: 3, Sampler: Euler, Schedule type: Beta, CFG scale")


words = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\x85"), max_size=20)
lines = st.lists(words, max_size=4).map("\n".join)


def as_parsed(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().split("\n"))


@given(prompt=lines, negative=lines, value=words, seed=st.integers(0, 2**63 - 2))
def test_what_was_written_can_be_read(prompt: str, negative: str, value: str, seed: int) -> None:
    if any("Negative prompt:" in text for text in (prompt, negative)):
        return
    spec = replace(SPEC, prompt=prompt, negative_prompt=negative, seeds=(seed,), params=(("Script", value + ","),))
    found = read(write(spec, MODEL, 0))
    assert found["Seed"] == str(seed)
    assert found["Script"] == value + ","
    assert (found["Size-1"], found["Size-2"]) == ("64", "72")
    assert found["Version"] == VERSION
    assert str(found["Prompt"]).strip() == as_parsed(prompt).strip()
    assert str(found["Negative prompt"]).strip() == as_parsed(negative).strip()


def test_a_text_without_entries_is_a_prompt() -> None:
    found = read("a cat, Steps: 1\nsecond: line")
    assert found["Prompt"] == "a cat, Steps: 1\nsecond: line"
    assert "Steps" not in found


def test_missing_entries_are_filled_in() -> None:
    found = read("")
    assert found["Clip skip"] == "1"
    assert found["Masked area padding"] == 32
    assert found["Refiner switch by sampling steps"] is False
    assert found["Prompt"] == ""


@given(text=st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    found: dict[str, Any] = read(text)
    assert isinstance(found["Prompt"], str)


def test_reading_takes_time_in_proportion_to_the_text() -> None:
    read("x\n" + 'aa: "' + "\\" * 50_000)
    read("x\n" + "a " * 50_000)
