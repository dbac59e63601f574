from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
SMALL = {"prompt": "dog", "steps": 2, "width": 64, "height": 64}

LENIENT: list[tuple[dict[str, Any], str]] = [
    ({"sampler_name": "Eulr"}, "sampler_name 'Eulr' is unknown"),
    ({"scheduler": "Karas"}, "scheduler 'Karas' is unknown"),
    ({"styles": ["nothing"]}, "style 'nothing' is unknown"),
    ({"prompt": "dog <lora:nothing:1>"}, "Lora not found: nothing"),
    ({"override_settings": {"sd_model_checkpoint": "nothing"}}, "'nothing' is unknown and was dropped"),
    ({"alwayson_scripts": {"ControlNet": {"args": []}}}, "alwayson_scripts.ControlNet is unknown"),
    ({"clip_skip": 2}, "'clip_skip' is an unknown field"),
    ({"steps": "2"}, "steps '2' was read as 2"),
    ({"cfg_scale": "7.5"}, "cfg_scale '7.5' was read as 7.5"),
    ({"steps": 2.5}, "steps 2.5 was read as 2"),
    ({"send_images": "true"}, "send_images 'true' was read as True"),
    ({"prompt": 5}, "prompt 5 was read as '5'"),
]


@pytest.mark.parametrize(("fields", "note"), LENIENT, ids=[next(iter(fields)) for fields, _ in LENIENT])
def test_what_is_passed_over_is_served_and_named(client: TestClient, fields: dict[str, Any], note: str) -> None:
    answer = client.post(TXT2IMG, json=SMALL | fields)
    assert answer.status_code == 200
    assert note in answer.headers["X-Darkroom-Warnings"]


@pytest.mark.parametrize(("fields", "note"), LENIENT, ids=[next(iter(fields)) for fields, _ in LENIENT])
def test_a_strict_server_refuses_it(serve: Serve, engine: FakeEngine, fields: dict[str, Any], note: str) -> None:
    answer = serve(strict=True).post(TXT2IMG, json=SMALL | fields)
    assert answer.status_code == 422
    assert answer.json()["code"] == "not_strict"
    assert note in answer.json()["detail"]
    assert not engine.jobs()


def test_what_loses_nothing_is_not_named(client: TestClient) -> None:
    answer = client.post(TXT2IMG, json=SMALL | {"steps": 2.0, "send_images": 1, "cfg_scale": 7, "seed": -1})
    assert answer.status_code == 200
    assert "X-Darkroom-Warnings" not in answer.headers


def test_a_strict_server_serves_what_is_right(serve: Serve) -> None:
    assert serve(strict=True).post(TXT2IMG, json=SMALL).status_code == 200


def test_what_has_no_effect_is_refused_too(serve: Serve) -> None:
    client = serve(strict=True)
    for field in (
        {"override_settings_restore_afterwards": False},
        {"override_settings": {"hypertile_enable_unet": True}},
    ):
        answer = client.post(TXT2IMG, json=SMALL | field)
        assert (answer.status_code, answer.json()["code"]) == (422, "not_strict")
        assert next(iter(field)) in answer.json()["detail"]
    answer = client.post("/sdapi/v1/options", json={"no_such_option": 5})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_strict")
    picture = to_base64(noise(16, 16))
    extras = {"image": picture, "upscaler_1": "Lanczos", "upscaling_resize": "2"}
    assert client.post("/sdapi/v1/extra-single-image", json=extras).status_code == 422


def test_the_options_of_a_strict_server_can_still_be_posted_back(serve: Serve) -> None:
    client = serve(strict=True)
    given = client.get("/sdapi/v1/options").json()
    assert client.post("/sdapi/v1/options", json=given).status_code == 200


def test_the_plain_route_names_unknown_fields(serve: Serve) -> None:
    body = {"prompt": "dog", "width": 64, "height": 64, "stepz": 3}
    assert "'stepz'" in serve().post("/generate/", json=body).headers["X-Darkroom-Warnings"]
    assert serve(strict=True).post("/generate/", json=body).status_code == 422


def test_a_script_is_held_to_it_too(serve: Serve) -> None:
    body = SMALL | {"script_name": "prompt matrix", "script_args": [False, False, "positive", "comma", 0], "stepz": 3}
    assert serve(strict=True).post(TXT2IMG, json=body).json()["code"] == "not_strict"


def test_a_thousand_unknown_fields_make_no_endless_header(client: TestClient) -> None:
    answer = client.post(TXT2IMG, json=SMALL | {f"field-{n}": n for n in range(1000)})
    assert answer.status_code == 200
    assert len(answer.headers["X-Darkroom-Warnings"]) <= 2000
