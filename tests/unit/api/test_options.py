import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from darkroom.errors import BadModelFile
from darkroom.options.store import Options
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


def test_every_option_is_shown_as_the_original_shows_it(client: TestClient, recordings: Path) -> None:
    recorded = json.loads((recordings / "cases/options_after_set.response.json").read_text())["body"]
    shown = client.get(ROUTE).json()
    assert list(shown)[: len(recorded)] == list(recorded)
    assert list(shown)[329:] == ["deepcache_interval"]
    other = {name for name, value in recorded.items() if shown[name] != value and not name.endswith("_explanation")}
    assert other == {"CLIP_stop_at_last_layers", "api_enable_requests", "settings_in_ui"}
    kinds = {name: {type(value), type(recorded[name])} for name, value in shown.items() if name in recorded}
    assert {name for name, pair in kinds.items() if len(pair) > 1 and pair != {int, float}} == set()


def test_unknown_options_are_named_not_refused(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"nonsense": 1, "jpeg_quality": 70})
    assert answer.status_code == 200
    assert answer.headers["X-Darkroom-Ignored"] == "nonsense"
    assert client.get(ROUTE).json()["jpeg_quality"] == 70


def test_an_option_that_steers_nothing_is_kept_and_named(client: TestClient) -> None:
    changes = {"hypertile_max_tile_unet": 64, "ldsr_steps": 100.0, "ui_tab_order": ["txt2img"]}
    answer = client.post(ROUTE, json=changes)
    assert answer.headers["X-Darkroom-Ignored"] == "hypertile_max_tile_unet, ui_tab_order"
    shown = client.get(ROUTE).json()
    assert {name: shown[name] for name in changes} == changes


def test_the_options_about_addresses_and_the_notes_cannot_be_changed(client: TestClient, tmp_path: Path) -> None:
    before = client.get(ROUTE).json()
    wanted = {"api_enable_requests": True, "api_forbid_local_requests": False, "api_useragent": "x"}
    answer = client.post(ROUTE, json={**wanted, "settings_in_ui": "x", "sd_checkpoint_hash": "abc"})
    assert answer.status_code == 200
    assert answer.headers["X-Darkroom-Ignored"] == ", ".join((*wanted, "settings_in_ui", "sd_checkpoint_hash"))
    assert client.get(ROUTE).json() == before
    drawn = client.post("/sdapi/v1/txt2img", json={"override_settings": wanted})
    assert drawn.headers["X-Darkroom-Ignored"] == ", ".join(f"override_settings.{name}" for name in wanted)


def test_the_operator_changes_them_in_the_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"api_enable_requests": true}')
    client = serve()
    assert client.get(ROUTE).json()["api_enable_requests"] is True
    assert "X-Darkroom-Ignored" not in client.post(ROUTE, json={"api_enable_requests": True}).headers


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
        ("ESRGAN_tile", 513),
        ("ui_tab_order", "txt2img"),
        ("outdir_save", "../elsewhere"),
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


def test_a_checkpoint_is_loaded_before_the_answer_unless_it_is_in_use(client: TestClient, engine: FakeEngine) -> None:
    client.post(ROUTE, json={"sd_model_checkpoint": "small-a"})
    assert engine.loaded == []
    client.post(ROUTE, json={"sd_model_checkpoint": "bar"})
    assert engine.loaded == ["sub/bar"]
    client.post(ROUTE, json={"sd_model_checkpoint": "sub/bar.safetensors"})
    assert engine.loaded == ["sub/bar"]


def test_a_checkpoint_that_cannot_be_loaded_is_not_chosen(client: TestClient, engine: FakeEngine) -> None:
    async def load(checkpoint: str) -> None:
        raise BadModelFile(f"{checkpoint} is damaged")

    engine.load = load  # type: ignore[method-assign]
    before = client.get(ROUTE).json()
    answer = client.post(ROUTE, json={"sd_model_checkpoint": "bar", "jpeg_quality": 5})
    assert answer.status_code == 500
    assert "sub/bar is damaged" in answer.text
    assert client.get(ROUTE).json() == before


def test_nothing_is_loaded_for_a_request_that_is_refused(client: TestClient, engine: FakeEngine) -> None:
    assert client.post(ROUTE, json={"sd_model_checkpoint": "bar", "jpeg_quality": 0}).status_code == 422
    assert client.post(ROUTE, json={"sd_model_checkpoint": ["bar"]}).status_code == 422
    assert engine.loaded == []


def test_jobs_keep_the_options_that_they_were_admitted_with(serve: Serve, engine: FakeEngine) -> None:
    engine.held = True
    client = serve()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/sdapi/v1/txt2img", json={"width": 64, "height": 64})
        wait_for(lambda: len(engine.specs) == 1)
        changes = {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "bar", "add_model_hash_to_info": False}
        assert client.post(ROUTE, json=changes).status_code == 200
        override = {"CLIP_stop_at_last_layers": 3, "samples_format": "webp"}
        second = pool.submit(client.post, "/sdapi/v1/txt2img", json={"override_settings": override})
        wait_for(lambda: len(engine.specs) == 2)
        assert client.post(ROUTE, json={"CLIP_stop_at_last_layers": 4}).status_code == 200
        for job in list(engine.jobs()):
            engine.finish(job.job_id)
        texts = [json.loads(answer.result(10).json()["info"])["infotexts"][0] for answer in (first, second)]
    assert [(spec.clip_skip, spec.checkpoint) for spec in engine.specs] == [(1, "small-a"), (3, "sub/bar")]
    assert "Model: small-a" in texts[0]
    assert "Clip skip" not in texts[0]
    assert "Clip skip: 3" in texts[1]
    shown = client.get(ROUTE).json()
    assert (shown["CLIP_stop_at_last_layers"], shown["samples_format"]) == (4, "png")


def test_a_slow_disk_holds_up_nobody_else(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    writing, written = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        writing.set()
        written.wait(10)

    monkeypatch.setattr(os, "fsync", wait)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, ROUTE, json={"jpeg_quality": 70})
        assert writing.wait(10)
        assert client.get(ROUTE).json()["jpeg_quality"] == 80
        assert not slow.done()
        written.set()
        assert slow.result(10).status_code == 200
    assert client.get(ROUTE).json()["jpeg_quality"] == 70


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_frozen_options_cannot_be_changed_by_anybody(serve: Serve) -> None:
    client = serve(freeze_settings=True)
    present = client.get(ROUTE).json()
    answer = client.post(ROUTE, json={"samples_format": "jpg"})
    assert answer.status_code == 403
    assert answer.json() | {"detail": ""} == {
        "error": "AssertionError",
        "detail": "",
        "body": "",
        "errors": "changing settings is disabled",
        "code": "frozen",
    }
    assert client.post(ROUTE, json={}).json()["errors"] == "saving settings is disabled"
    assert client.post(ROUTE, json={"sd_model_checkpoint": "bar"}).status_code == 403
    assert client.get(ROUTE).json() == present


def test_some_options_may_be_frozen_and_the_others_not(serve: Serve) -> None:
    client = serve(freeze_specific_settings="jpeg_quality", freeze_settings_in_sections="vae,sd")
    everything = client.get(ROUTE).json()
    assert client.post(ROUTE, json={**everything, "samples_format": "webp"}).status_code == 200
    assert client.post(ROUTE, json={"sd_model_checkpoint": "small-a", "jpeg_quality": 80.0}).status_code == 200
    for change in ({"jpeg_quality": 81}, {"sd_vae": "None"}, {"sd_model_checkpoint": "bar"}):
        answer = client.post(ROUTE, json={"grid_format": "webp", **change})
        assert answer.status_code == 403
        assert next(iter(change)) in answer.json()["errors"]
    assert client.get(ROUTE).json() == {**everything, "samples_format": "webp"}


def test_a_frozen_option_holds_for_single_requests_too(serve: Serve, engine: FakeEngine) -> None:
    client = serve(freeze_specific_settings="CLIP_stop_at_last_layers")
    body = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1}
    refused = client.post("/sdapi/v1/txt2img", json={**body, "override_settings": {"CLIP_stop_at_last_layers": 2}})
    assert (refused.status_code, refused.json()["code"]) == (403, "frozen")
    for overrides in ({"CLIP_stop_at_last_layers": 1}, {"samples_format": "jpg"}):
        assert client.post("/sdapi/v1/txt2img", json={**body, "override_settings": overrides}).status_code == 200
    assert len(engine.specs) == 2


def test_what_is_frozen_is_among_the_flags(serve: Serve) -> None:
    flags = serve(freeze_specific_settings="jpeg_quality").get("/sdapi/v1/cmd-flags").json()
    frozen = [flags[f"freeze_{name}"] for name in ("settings", "settings_in_sections", "specific_settings")]
    assert frozen == [False, None, "jpeg_quality"]
