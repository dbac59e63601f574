import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.jobs.spec import InitImage, SoftInpainting
from tests.unit.api.conftest import box_mask, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

ROUTE = "/sdapi/v1/img2img"


def body(arguments: Any, title: str = "Soft inpainting", **fields: Any) -> dict[str, Any]:
    mask = Image.new("L", (64, 64), 100)
    return {
        "width": 64,
        "height": 64,
        "init_images": [to_base64(noise(64, 64))],
        "mask": to_base64(mask),
        "mask_blur": 0,
        "inpaint_full_res": False,
        "inpainting_fill": 1,
        "alwayson_scripts": {title: {"args": arguments}},
        **fields,
    }


def start(engine: FakeEngine) -> InitImage:
    init = engine.specs[-1].init
    assert init is not None
    return init


@pytest.mark.parametrize("title", ["Soft inpainting", "Soft Inpainting", "soft inpainting"])
def test_its_arguments_reach_the_job(client: TestClient, engine: FakeEngine, title: str) -> None:
    answer = client.post(ROUTE, json=body([True, 2, 0.7, 8, 0.1, 0.25, 3], title))
    assert answer.status_code == 200, answer.text
    assert "X-Darkroom-Ignored" not in answer.headers
    assert start(engine).soft == SoftInpainting(
        power=2, scale=0.7, contrast=8, mask_influence=0.1, threshold=0.25, sharpness=3
    )


def test_the_mask_keeps_its_grey_levels(client: TestClient, engine: FakeEngine) -> None:
    client.post(ROUTE, json=body([True]))
    latent_mask, mask = start(engine).latent_mask, start(engine).mask
    assert latent_mask is not None
    assert mask is not None
    assert latent_mask[0, 0] == pytest.approx(100 / 255)
    assert (mask == 100).all()


def test_the_text_repeats_the_arguments_as_they_came_and_comes_first(client: TestClient) -> None:
    document = json.loads(client.post(ROUTE, json=body([True, 1, 0.5])).json()["info"])
    assert list(document["extra_generation_params"].items())[:8] == [
        ("Soft inpainting enabled", True),
        ("Soft inpainting schedule bias", 1),
        ("Soft inpainting preservation strength", 0.5),
        ("Soft inpainting transition contrast boost", 4),
        ("Soft inpainting mask influence", 0),
        ("Soft inpainting difference threshold", 0.5),
        ("Soft inpainting difference contrast", 2),
        ("Denoising strength", 0.75),
    ]


@pytest.mark.parametrize("arguments", [[], [False], [False, 3, 3, 3, 0.3, 3, 3]])
def test_it_is_off_unless_it_is_asked_for(client: TestClient, engine: FakeEngine, arguments: list[object]) -> None:
    document = json.loads(client.post(ROUTE, json=body(arguments)).json()["info"])
    assert start(engine).soft is None
    assert "Soft inpainting enabled" not in document["extra_generation_params"]


def test_without_a_mask_it_does_nothing(client: TestClient, engine: FakeEngine) -> None:
    document = json.loads(client.post(ROUTE, json=body([True], mask=None)).json()["info"])
    assert start(engine).soft is None
    assert list(document["extra_generation_params"]) == ["Denoising strength"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([True, -1], "bias"),
        ([True, 1, 1e9], "strength"),
        ([True, 1, 1, 0], "contrast"),
        ([True, 1, 1, 4, 2], "influence"),
        ([True, 1, 1, 4, 0, -0.1], "threshold"),
        ([True, 1, 1, 4, 0, 0.5, "much"], "difference_contrast"),
    ],
)
def test_an_argument_without_a_meaning_is_refused_by_name(
    client: TestClient, arguments: list[object], named: str
) -> None:
    answer = client.post(ROUTE, json=body(arguments))
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_the_picture_that_goes_on_top_is_the_whole_start(client: TestClient, engine: FakeEngine) -> None:
    answer = client.post(ROUTE, json=body([True], mask=to_base64(box_mask(64, 64, (8, 8, 16, 16)))))
    assert answer.status_code == 200
    assert start(engine).soft is not None
    assert np.array_equal(start(engine).pictures[0], np.asarray(noise(64, 64)))
