"""What is refused before a job is made is what its plan would be refused for, and nothing else."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from darkroom.api.refusals import check_samplers
from darkroom.errors import BadRequest
from darkroom.jobs.spec import Hires, InitImage, JobSpec
from darkroom.sampling.names import SAMPLERS, get_sampler
from darkroom.sampling.options import SamplingOptions
from darkroom.sampling.plan import plan_img2img, plan_txt2img
from darkroom.sampling.tables import noise_table
from tests.unit.api.conftest import noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

NAMES = [sampler.name for sampler in SAMPLERS]
REQUEST = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}
UNIPC = {**REQUEST, "sampler_name": "UniPC"}


def job(sampler: str, steps: int, options: SamplingOptions, **fields: Any) -> JobSpec:
    return JobSpec(
        kind="img2img" if "init" in fields else "txt2img", checkpoint="", prompt="", negative_prompt="", width=64,
        height=64, steps=steps, cfg_scale=7, sampler=sampler, scheduler="Automatic", seeds=(1,), subseeds=(1,),
        sampling=options, **fields,
    )  # fmt: skip


def starting(strength: float, fixed: bool) -> InitImage:
    picture = np.zeros((64, 64, 3), np.uint8)
    return InitImage(pictures=(picture,), denoising_strength=strength, fix_steps=fixed)


def second(sampler: str, steps: int, strength: float) -> Hires:
    return Hires(
        checkpoint="", size=(128, 128), upscaler="Latent", steps=steps, denoising_strength=strength, sampler=sampler,
        scheduler="Automatic", prompt="", negative_prompt="", eta=1,
    )  # fmt: skip


def plan(spec: JobSpec) -> None:
    """Find the levels of every pass, as the job itself does."""
    options = spec.sampling
    sampler = get_sampler(spec.sampler)
    table = noise_table(options, sampler)
    if spec.init:
        strength, fixed = spec.init.denoising_strength, spec.init.fix_steps
        plan_img2img(table, sampler, spec.scheduler, spec.steps, strength, fixed, options)
    else:
        plan_txt2img(table, sampler, spec.scheduler, spec.steps, options)
    if spec.hires:
        sampler = get_sampler(spec.hires.sampler)
        strength, steps = spec.hires.denoising_strength, spec.hires.steps
        plan_img2img(noise_table(options, sampler), sampler, "Automatic", steps, strength, True, options)


STEPS = st.integers(1, 12) | st.integers(1, 150)
OPTIONS = st.builds(
    SamplingOptions,
    unipc_order=st.integers(1, 12),
    discard_penultimate=st.booleans(),
    downcast_alphas=st.booleans(),
    zero_terminal_snr=st.booleans(),
)
STRENGTHS = st.floats(0, 1)


@given(
    sampler=st.sampled_from([*NAMES, *["UniPC"] * 10]),
    steps=STEPS,
    options=OPTIONS,
    init=st.none() | st.builds(starting, STRENGTHS, st.booleans()),
    hires=st.none() | st.builds(second, st.sampled_from(["Euler", "UniPC"]), STEPS, STRENGTHS),
)
def test_what_is_refused_early_is_what_no_plan_can_be_made_for(
    sampler: str, steps: int, options: SamplingOptions, init: InitImage | None, hires: Hires | None
) -> None:
    spec = job(sampler, steps, options, **({"init": init} if init else {"hires": hires}))
    reason = None
    try:
        plan(spec)
    except BadRequest as error:
        reason = error
    with pytest.raises(BadRequest) if reason else contextlib.nullcontext() as found:
        check_samplers(spec)
    if reason:
        assert found is not None
        assert found.value.field == reason.field


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("txt2img", UNIPC, "uni_pc_order"),
        ("txt2img", {**UNIPC, "steps": 9, "override_settings": {"uni_pc_order": 20}}, "uni_pc_order"),
        (
            "txt2img",
            {**REQUEST, "enable_hr": True, "denoising_strength": 0.5, "hr_sampler_name": "UniPC"},
            "uni_pc_order",
        ),
        ("img2img", {**UNIPC, "steps": 4, "denoising_strength": 0.5}, "uni_pc_order"),
        (
            "txt2img",
            {
                **REQUEST,
                "override_settings": {"sd_noise_schedule": "Zero Terminal SNR", "use_downcasted_alpha_bar": True},
            },
            "sd_noise_schedule",
        ),
    ],
)
def test_the_request_is_refused_and_no_job_is_made(
    client: TestClient, engine: FakeEngine, route: str, body: dict[str, Any], field: str
) -> None:
    pictures = {"init_images": [to_base64(noise(64, 64))]} if route == "img2img" else {}
    answer = client.post(f"/sdapi/v1/{route}", json=body | pictures)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert answer.json()["detail"].startswith(field)
    assert engine.specs == []
