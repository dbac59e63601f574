"""The hires fields of a request: sizes, names, what the text says, what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from darkroom.api.hires import Target, target_of
from darkroom.jobs.conversions import first_pass_size
from darkroom.jobs.spec import Hires, JobSpec
from tests.unit.api.conftest import Serve, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

ROUTE = "/sdapi/v1/txt2img"
SIDES = st.integers(8, 2048)


def asking(**fields: Any) -> dict[str, Any]:
    """A request with hires fix."""
    small = {"prompt": "a cat", "steps": 5, "width": 64, "height": 96, "sampler_name": "Euler", "seed": 1}
    return small | {"enable_hr": True, "denoising_strength": 0.6} | fields


def spec_of(client: TestClient, engine: FakeEngine, **fields: Any) -> JobSpec:
    answer = client.post(ROUTE, json=asking(**fields))
    assert answer.status_code == 200, answer.text
    return engine.specs[-1]


def hires_of(client: TestClient, engine: FakeEngine, **fields: Any) -> Hires:
    hires = spec_of(client, engine, **fields).hires
    assert hires is not None
    return hires


def told(client: TestClient, **fields: Any) -> str:
    """The entries of the generation text that follow "Denoising strength", without the version."""
    document = json.loads(client.post(ROUTE, json=asking(**fields)).json()["info"])
    line: str = document["infotexts"][0].splitlines()[-1]
    return line.partition("Model: small-a, Denoising strength: 0.6, ")[2].partition(", Version:")[0]


def refusal(client: TestClient, **fields: Any) -> tuple[int, str]:
    answer = client.post(ROUTE, json=asking(**fields))
    return answer.status_code, answer.json()["detail"]


# Sizes.


@given(size=st.tuples(SIDES, SIDES), resize=st.tuples(SIDES, SIDES))
def test_a_size_given_by_both_sides_is_covered_and_cropped_to_within_a_latent_pixel(
    size: tuple[int, int], resize: tuple[int, int]
) -> None:
    target = target_of(size, 2.0, resize)
    for covering, wanted, crop in zip(target.size, resize, target.crop, strict=True):
        assert covering >= wanted
        assert crop >= 0
        assert wanted // 8 <= covering // 8 - crop <= wanted // 8 + 1
    assert resize[0] == target.size[0] or resize[1] == target.size[1]


@given(size=st.tuples(SIDES, SIDES), side=SIDES)
def test_a_size_given_by_one_side_keeps_the_shape(size: tuple[int, int], side: int) -> None:
    assert target_of(size, 2.0, (side, 0)) == Target((side, side * size[1] // size[0]))
    assert target_of(size, 2.0, (0, side)) == Target((side * size[0] // size[1], side))


@given(size=st.tuples(SIDES, SIDES), scale=st.floats(1, 8))
def test_a_factor_is_applied_to_both_sides_and_rounded_down(size: tuple[int, int], scale: float) -> None:
    assert target_of(size, scale) == Target((int(size[0] * scale), int(size[1] * scale)))


@given(size=st.tuples(SIDES, SIDES))
def test_the_old_first_pass_has_about_512_by_512_pixels_in_steps_of_64(size: tuple[int, int]) -> None:
    width, height = first_pass_size(*size)
    assert width % 64 == height % 64 == 0
    assert width * height >= 512 * 512 * 0.999
    assert (width - 64) * (height - 64) <= 512 * 512


@pytest.mark.parametrize(
    ("fields", "first", "target", "crop"),
    [
        ({}, (64, 96), (128, 192), (0, 0)),
        ({"hr_scale": 1.3}, (64, 96), (83, 124), (0, 0)),
        ({"hr_resize_x": 200}, (64, 96), (200, 300), (0, 0)),
        ({"hr_resize_y": 200}, (64, 96), (133, 200), (0, 0)),
        ({"hr_resize_x": 128, "hr_resize_y": 128}, (64, 96), (128, 192), (0, 8)),
        ({"hr_resize_x": 64, "hr_resize_y": 192}, (64, 96), (128, 192), (8, 0)),
        ({"firstphase_width": 128, "firstphase_height": 64}, (128, 64), (256, 128), (0, 0)),
    ],
)
def test_a_request_s_sizes(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], first: Any, target: Any, crop: Any
) -> None:
    spec = spec_of(client, engine, **fields)
    assert (spec.width, spec.height) == first
    assert spec.hires
    assert (spec.hires.size, spec.hires.crop) == (target, crop)


def test_the_old_fields_for_the_first_pass_count_without_hires_fix(client: TestClient, engine: FakeEngine) -> None:
    spec = spec_of(client, engine, enable_hr=False, firstphase_width=128, firstphase_height=64)
    assert (spec.width, spec.height, spec.hires) == (128, 64, None)


def test_the_old_option_makes_the_size_that_of_the_larger_picture(client: TestClient, engine: FakeEngine) -> None:
    old = {"use_old_hires_fix_width_height": True}
    spec = spec_of(client, engine, width=1024, height=768, override_settings=old)
    assert (spec.width, spec.height) == (640, 448)
    assert spec.hires
    assert (spec.hires.size, spec.hires.crop) == ((1097, 768), (9, 0))


# Names and numbers.


def test_what_is_left_out_is_the_first_pass_s(client: TestClient, engine: FakeEngine) -> None:
    hires = hires_of(client, engine, sampler_name="DPM++ 2M", scheduler="Exponential", negative_prompt="a dog")
    assert (hires.checkpoint, hires.upscaler, hires.steps) == ("small-a", "Latent", 5)
    assert (hires.sampler, hires.scheduler) == ("DPM++ 2M", "Exponential")
    assert (hires.prompt, hires.negative_prompt) == ("a cat", "a dog")


def test_everything_may_be_said_about_the_second_pass(client: TestClient, engine: FakeEngine) -> None:
    hires = hires_of(
        client, engine, hr_upscaler="Lanczos", hr_second_pass_steps=3, hr_checkpoint_name="bar", hr_prompt="a dog",
        hr_negative_prompt="fog", hr_sampler_name="DDIM", hr_scheduler="karras",
        override_settings={"eta_ddim": 0.5, "img2img_extra_noise": 0.1},
    )  # fmt: skip
    assert (hires.checkpoint, hires.upscaler, hires.steps) == ("sub/bar", "Lanczos", 3)
    assert (hires.sampler, hires.scheduler) == ("DDIM", "Karras")
    assert (hires.prompt, hires.negative_prompt) == ("a dog", "fog")
    assert (hires.eta, hires.extra_noise) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("hr_scheduler", "meant"),
    [(None, "Exponential"), ("Use same scheduler", "Exponential"), ("", "Automatic"), ("no such", "Uniform")],
)
def test_a_scheduler_that_is_none(client: TestClient, engine: FakeEngine, hr_scheduler: Any, meant: str) -> None:
    assert hires_of(client, engine, scheduler="Exponential", hr_scheduler=hr_scheduler).scheduler == meant


def test_the_words_of_menus_mean_the_same_as_the_first_pass(client: TestClient, engine: FakeEngine) -> None:
    hires = hires_of(client, engine, hr_sampler_name="Use same sampler", hr_checkpoint_name="Use same checkpoint")
    assert (hires.sampler, hires.checkpoint) == ("Euler", "small-a")


def test_a_picture_may_stand_in_for_the_first_pass(client: TestClient, engine: FakeEngine) -> None:
    hires = hires_of(client, engine, firstpass_image=to_base64(noise(40, 24)))
    assert hires.picture is not None
    assert hires.picture.shape == (24, 40, 3)
    assert spec_of(client, engine, enable_hr=False, firstpass_image="no picture").hires is None


# The generation text.


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Hires upscale: 2.0"),
        ({"hr_scale": 1.5, "hr_upscaler": "None"}, "Hires upscale: 1.5, Hires upscaler: None"),
        ({"hr_resize_x": 192}, "Hires resize: 192x0"),
        (
            {"hr_sampler_name": "Euler", "hr_second_pass_steps": 5, "hr_prompt": "a cat", "hr_upscaler": "Latent"},
            "Hires upscale: 2.0, Hires steps: 5, Hires upscaler: Latent",
        ),
        (
            {"hr_sampler_name": "DPM++ 2M", "hr_prompt": "a dog", "hr_resize_y": 192},
            "Hires sampler: DPM++ 2M, Hires prompt: a dog, Hires schedule type: Karras, Hires resize: 0x192",
        ),
        (
            {"hr_checkpoint_name": "small", "hr_negative_prompt": "fog"},
            "Hires checkpoint: small-a [76fc168833], Hires negative prompt: fog, Hires upscale: 2.0",
        ),
        (
            {"sampler_name": "DPM++ 2M", "hr_sampler_name": "Euler", "hr_scheduler": "Karras"},
            "Hires sampler: Euler, Hires upscale: 2.0",
        ),
        (
            {"hr_sampler_name": "Euler a", "eta": 0.5, "override_settings": {"img2img_extra_noise": 0.1}},
            "Hires sampler: Euler a, Hires upscale: 2.0, Extra noise: 0.1, Eta: 0.5",
        ),
    ],
)
def test_the_text_tells_what_was_chosen(client: TestClient, fields: dict[str, Any], text: str) -> None:
    assert told(client, **fields) == text


def test_the_document_leaves_a_gap_for_what_each_picture_tells(client: TestClient) -> None:
    document = json.loads(client.post(ROUTE, json=asking(hr_prompt="a dog")).json()["info"])
    assert document["extra_generation_params"] == {
        "Denoising strength": 0.6,
        "Hires prompt": None,
        "Hires negative prompt": None,
        "Hires schedule type": None,
        "Hires upscale": 2.0,
    }
    assert (document["width"], document["height"]) == (64, 96)


# Refusals.


@pytest.mark.parametrize(
    ("fields", "status", "parts"),
    [
        ({"denoising_strength": None}, 422, ["denoising_strength", "None", "above 0"]),
        ({"denoising_strength": 0}, 422, ["denoising_strength", "above 0"]),
        ({"hr_upscaler": "Lanzcos"}, 404, ["hr_upscaler", "'Lanzcos'", "Lanczos"]),
        ({"hr_checkpoint_name": "nobody"}, 404, ["hr_checkpoint_name", "'nobody'", "small-a"]),
        ({"hr_sampler_name": "DPM++ 2M Karras"}, 404, ["hr_sampler_name", "DPM++ 2M"]),
        ({"hr_scale": 100}, 422, ["hr_scale", "6400x9600", "2048x2048"]),
        ({"hr_scale": 1e300}, 422, ["hr_scale"]),
        ({"hr_scale": 0}, 422, ["hr_scale", "at least 8"]),
        ({"hr_scale": -1}, 422, ["hr_scale", "at least 8"]),
        ({"hr_scale": None}, 422, ["hr_scale", "None"]),
        ({"hr_resize_x": 4096}, 422, ["hr_resize_x", "4096", "2048"]),
        ({"hr_resize_x": 2048, "hr_resize_y": 8}, 422, ["hr_resize_x", "2048x3072"]),
        ({"hr_resize_y": -8}, 422, ["hr_resize_y", "-8"]),
        ({"hr_resize_y": 4}, 422, ["hr_resize_y", "at least 8"]),
        ({"hr_second_pass_steps": 100_000}, 422, ["hr_second_pass_steps"]),
        ({"hr_second_pass_steps": -1}, 422, ["hr_second_pass_steps"]),
        ({"firstphase_width": 64}, 422, ["firstphase_height", "0"]),
        ({"firstpass_image": "no picture"}, 422, ["firstpass_image"]),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    client: TestClient, fields: dict[str, Any], status: int, parts: list[str]
) -> None:
    answered, detail = refusal(client, **fields)
    assert answered == status, detail
    assert all(part in detail for part in parts), detail


def test_the_larger_picture_is_subject_to_the_operator_s_limits(serve: Serve) -> None:
    client = serve(max_pixels=20_000)
    assert client.post(ROUTE, json=asking(hr_scale=1.7)).status_code == 200
    status, detail = refusal(client, hr_scale=2)
    assert status == 422
    assert "128x192" in detail
    assert "20000 pixels" in detail


def test_an_unknown_scheduler_is_replaced_with_a_warning(client: TestClient) -> None:
    answer = client.post(ROUTE, json=asking(hr_scheduler="no such"))
    assert answer.status_code == 200
    assert "hr_scheduler" in answer.headers["X-Darkroom-Warnings"]
