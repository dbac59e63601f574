import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from darkroom.api.other_options import OTHER_OPTIONS
from darkroom.settings import Options, OptionValues
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import SHA, FakeEngine

ROUTE = "/sdapi/v1/options"

EXPECTED_BY_CLIENTS = """
    samples_format sd_model_checkpoint CLIP_stop_at_last_layers eta_noise_seed_delta ddim_discretize img2img_fix_steps
    sd_hypernetwork inpainting_mask_weight initial_noise_multiplier comma_padding_backtrack sd_checkpoint_hash
""".split()


def test_what_clients_expect_to_exist_does(client: TestClient) -> None:
    shown = client.get(ROUTE).json()
    assert set(EXPECTED_BY_CLIENTS) <= set(shown)


def test_the_checkpoint_reads_as_a_title_of_the_list(client: TestClient) -> None:
    titles = [model["title"] for model in client.get("/sdapi/v1/sd-models").json()]
    assert client.get(ROUTE).json()["sd_model_checkpoint"] == titles[0]
    client.post(ROUTE, json={"sd_model_checkpoint": "sub_bar"})
    assert client.get(ROUTE).json()["sd_model_checkpoint"] == titles[1]


@pytest.mark.parametrize(
    "name", ["small-a.safetensors", "small-a", "small-a.safetensors [76fc168833]", "76fc168833", SHA]
)
def test_a_checkpoint_is_chosen_by_any_of_its_exact_names(client: TestClient, name: str) -> None:
    client.post(ROUTE, json={"sd_model_checkpoint": "bar"})
    answer = client.post(ROUTE, json={"sd_model_checkpoint": name})
    assert answer.status_code == 200
    assert answer.json() is None
    shown = client.get(ROUTE).json()
    assert shown["sd_model_checkpoint"] == "small-a.safetensors [76fc168833]"
    assert shown["sd_checkpoint_hash"] == SHA


def test_an_unknown_checkpoint_is_an_error_and_changes_nothing(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"jpeg_quality": 5, "sd_model_checkpoint": "zzz"})
    body = answer.json()
    assert answer.status_code == 404
    assert body["error"] == "RuntimeError"
    assert body["errors"] == "model 'zzz' not found"
    assert body["code"] == "unknown_name"
    assert "small-a" in body["detail"]
    assert all(isinstance(value, str) for value in body.values())
    assert client.get(ROUTE).json()["jpeg_quality"] == 80


def test_null_goes_back_to_the_first_checkpoint(client: TestClient) -> None:
    client.post(ROUTE, json={"sd_model_checkpoint": "bar"})
    client.post(ROUTE, json={"sd_model_checkpoint": None})
    assert client.get(ROUTE).json()["sd_model_checkpoint"].startswith("small-a")


def test_the_whole_object_can_be_posted_back(client: TestClient) -> None:
    everything = client.get(ROUTE).json()
    answer = client.post(ROUTE, json={**everything, "sd_model_checkpoint": "sub/bar.safetensors"})
    assert answer.status_code == 200
    assert "X-Darkroom-Ignored" not in answer.headers
    assert client.get(ROUTE).json() == {
        **everything,
        "sd_model_checkpoint": "sub/bar.safetensors",
        "sd_checkpoint_hash": "",
    }


def test_integers_as_floats_and_texts_are_taken(client: TestClient) -> None:
    client.post(ROUTE, json={"CLIP_stop_at_last_layers": 2.0, "eta_noise_seed_delta": "31337"})
    shown = client.get(ROUTE).json()
    assert (shown["CLIP_stop_at_last_layers"], shown["eta_noise_seed_delta"]) == (2, 31337)


def test_every_option_of_the_original_is_listed_once(client: TestClient, recordings: Path) -> None:
    recorded = json.loads((recordings / "cases/options_after_set.response.json").read_text())["body"]
    assert set(recorded) <= set(client.get(ROUTE).json())
    assert not set(OTHER_OPTIONS) & set(OptionValues.model_fields)


def test_unknown_options_are_named_not_refused(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"nonsense": 1, "jpeg_quality": 70, "ESRGAN_tile": 64, "DAT_tile": 192})
    assert answer.status_code == 200
    assert answer.headers["X-Darkroom-Ignored"] == "nonsense, ESRGAN_tile"
    assert client.get(ROUTE).json()["ESRGAN_tile"] == 192
    assert client.get(ROUTE).json()["jpeg_quality"] == 70


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLIP_stop_at_last_layers", "abc"),
        ("CLIP_stop_at_last_layers", 99),
        ("samples_format", "bmp"),
        ("randn_source", "TPU"),
        ("img2img_background_color", "red; drop"),
        ("jpeg_quality", None),
        ("s_noise", 1e300),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_changes_nothing(client: TestClient, name: str, value: object) -> None:
    before = client.get(ROUTE).json()
    answer = client.post(ROUTE, json={"sd_model_checkpoint": "bar", name: value})
    assert answer.status_code == 422
    assert name in answer.json()["detail"]
    assert client.get(ROUTE).json() == before


def test_options_outlive_the_process(client: TestClient, tmp_path: Path) -> None:
    client.post(ROUTE, json={"jpeg_quality": 33})
    assert json.loads((tmp_path / "config.json").read_text())["jpeg_quality"] == 33
    assert Options(tmp_path / "config.json").snapshot().jpeg_quality == 33


def test_an_empty_body_is_an_empty_change_and_an_array_too(client: TestClient) -> None:
    assert client.post(ROUTE, json={}).status_code == 200
    assert client.post(ROUTE, json=[]).status_code == 200
    assert client.post(ROUTE, json=[1]).status_code == 422


def test_a_job_keeps_the_options_it_started_with(serve: Serve, engine: FakeEngine) -> None:
    client = serve()
    client.post("/sdapi/v1/txt2img", json={})
    client.post(ROUTE, json={"CLIP_stop_at_last_layers": 2})
    assert engine.specs[0].clip_skip == 1
