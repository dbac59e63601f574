import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.images.metadata import read_notes
from tests.unit.api.conftest import Serve, from_base64
from tests.unit.api.fake_engine import SHA, FakeEngine, colour

ROUTE = "/sdapi/v1/txt2img"

FIELDS = """
    prompt negative_prompt styles seed subseed subseed_strength seed_resize_from_h seed_resize_from_w sampler_name
    scheduler batch_size n_iter steps cfg_scale width height restore_faces tiling do_not_save_samples
    do_not_save_grid eta denoising_strength s_min_uncond s_churn s_tmax s_tmin s_noise override_settings
    override_settings_restore_afterwards refiner_checkpoint refiner_switch_at disable_extra_networks firstpass_image
    comments enable_hr firstphase_width firstphase_height hr_scale hr_upscaler hr_second_pass_steps hr_resize_x
    hr_resize_y hr_checkpoint_name hr_sampler_name hr_scheduler hr_prompt hr_negative_prompt force_task_id
    sampler_index script_name script_args send_images save_images alwayson_scripts infotext
""".split()

INFO_KEYS = """
    prompt all_prompts negative_prompt all_negative_prompts seed all_seeds subseed all_subseeds subseed_strength
    width height sampler_name cfg_scale steps batch_size restore_faces face_restoration_model sd_model_name
    sd_model_hash sd_vae_name sd_vae_hash seed_resize_from_w seed_resize_from_h denoising_strength
    extra_generation_params index_of_first_image infotexts styles job_timestamp clip_skip
    is_using_inpainting_conditioning version
""".split()


def post(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post(ROUTE, json=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert list(body) == ["images", "parameters", "info"]
    return body


def info(client: TestClient, **fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(post(client, **fields)["info"])
    return document


def test_a_prompt_gives_a_picture_of_its_seed(client: TestClient) -> None:
    body = post(client, prompt="a cat", seed=5, width=64, height=72)
    picture = from_base64(body["images"][0])
    assert picture.size == (64, 72)
    assert picture.getpixel((0, 0)) == colour(5)


def test_parameters_echo_every_field_in_order_as_requested(client: TestClient) -> None:
    echo = post(client, prompt="a cat", cfg_scale=7, sampler_name="DPM++ 2M Karras", unknown=1)["parameters"]
    assert list(echo) == FIELDS
    assert echo["cfg_scale"] == 7.0
    assert echo["sampler_name"] == "DPM++ 2M Karras"
    assert echo["seed"] == -1
    assert echo["steps"] == 50


def test_info_is_a_json_text_with_the_keys_of_the_contract_in_order(client: TestClient) -> None:
    text = post(client, prompt="ä", steps=3)["info"]
    assert text.isascii()
    assert '", "' in text
    assert list(json.loads(text)) == INFO_KEYS


def test_info_tells_what_was_done(client: TestClient) -> None:
    document = info(client, prompt="a cat", steps=3, width=64, height=64, seed=5)
    assert document["infotexts"][0] == (
        "a cat\nSteps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 5, Size: 64x64, "
        "Model hash: 76fc168833, Model: small-a, Version: darkroom 0.1.0"
    )
    assert document["sd_model_name"] == "small-a"
    assert document["sd_model_hash"] == SHA[:10]
    assert document["denoising_strength"] is None
    assert document["extra_generation_params"] == {}
    assert re.fullmatch(r"\d{14}", document["job_timestamp"])


def test_the_picture_carries_its_generation_text(client: TestClient) -> None:
    body = post(client, prompt="a cat", seed=5)
    assert from_base64(body["images"][0]).info["parameters"] == json.loads(body["info"])["infotexts"][0]


def test_numbers_as_text_and_floats_for_integers_are_taken(client: TestClient, engine: FakeEngine) -> None:
    post(client, prompt=5, steps=" 7 ", width=64.9, height="64", seed="123", cfg_scale="6.5", batch_size=True)
    spec = engine.specs[0]
    assert (spec.prompt, spec.steps, spec.width, spec.seeds, spec.cfg_scale) == ("5", 7, 64, (123,), 6.5)


def test_json_without_a_content_type_is_json(client: TestClient) -> None:
    assert client.post(ROUTE, content=b'{"prompt": "a"}').status_code == 200


def test_an_empty_array_stands_for_an_object(client: TestClient) -> None:
    answer = client.post(ROUTE, content=b"[]")
    assert answer.status_code == 200
    assert post(client, override_settings=[], alwayson_scripts=[])["parameters"]["alwayson_scripts"] == {}


def test_nulls_that_clients_send_are_fine(client: TestClient) -> None:
    names = "denoising_strength eta s_tmax styles script_name hr_prompt refiner_checkpoint sampler_name scheduler seed"
    post(client, **dict.fromkeys(names.split()))


def test_a_size_left_out_is_the_native_size_of_the_checkpoint(client: TestClient, engine: FakeEngine) -> None:
    engine.models[0] = replace(engine.models[0], native_size=128)
    body = post(client, height=64)
    assert (engine.specs[0].width, engine.specs[0].height) == (128, 64)
    assert (body["parameters"]["width"], body["parameters"]["height"]) == (128, 64)


def test_pictures_come_batch_after_batch_with_growing_seeds(client: TestClient) -> None:
    body = post(client, seed=10, batch_size=2, n_iter=3, width=64, height=64)
    seeds = [10, 11, 12, 13, 14, 15]
    assert [from_base64(image).getpixel((0, 0)) for image in body["images"]] == [colour(seed) for seed in seeds]
    document = json.loads(body["info"])
    assert document["all_seeds"] == seeds
    assert len(document["infotexts"]) == len(document["all_prompts"]) == 6


def test_a_variation_keeps_the_seed_and_grows_the_variation_seed(client: TestClient) -> None:
    document = info(client, seed=10, subseed=99, subseed_strength=0.3, batch_size=2)
    assert document["all_seeds"] == [10, 10]
    assert document["all_subseeds"] == [99, 100]
    assert "Variation seed: 100, Variation seed strength: 0.3" in document["infotexts"][1]


def test_a_seed_of_minus_one_is_drawn_and_reported(client: TestClient) -> None:
    seeds = {info(client, seed=-1)["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed <= 4294967293 for seed in seeds)


def test_a_twelve_digit_seed_is_kept(client: TestClient) -> None:
    assert info(client, seed=123456789012)["seed"] == 123456789012


@pytest.mark.parametrize(
    ("fields", "sampler", "schedule"),
    [
        ({}, "Euler", "Automatic"),
        ({"sampler_name": ""}, "Euler", "Automatic"),
        ({"sampler_name": None, "sampler_index": "Heun"}, "Heun", "Automatic"),
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler_name": "Euler a", "scheduler": "karras"}, "Euler a", "Karras"),
        ({"sampler_name": "nope"}, "DPM++ 2M", "Karras"),
        ({"sampler_name": "Euler Karras", "scheduler": "Exponential"}, "Euler", "Exponential"),
        ({"sampler_name": "DDIM", "scheduler": "Karras"}, "DDIM", "Karras"),
    ],
)
def test_sampler_names_resolve_as_the_contract_says(
    client: TestClient, fields: dict[str, Any], sampler: str, schedule: str
) -> None:
    document = info(client, **fields)
    assert document["sampler_name"] == sampler
    assert f"Schedule type: {schedule}," in document["infotexts"][0]


def test_an_unknown_sampler_is_replaced_and_named(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"sampler_name": "nope", "scheduler": "never"})
    warnings = answer.headers["X-Darkroom-Warnings"]
    assert "'nope'" in warnings
    assert "'never'" in warnings


def test_overrides_apply_to_this_job_alone(client: TestClient, engine: FakeEngine) -> None:
    overrides = {"CLIP_stop_at_last_layers": 2.0, "randn_source": "NV", "eta_noise_seed_delta": 31337}
    document = info(client, sampler_name="Euler a", override_settings=overrides)
    spec = engine.specs[0]
    assert (spec.clip_skip, spec.noise_source, spec.seed_delta) == (2, "NV", 31337)
    assert "Clip skip: 2, ENSD: 31337, RNG: NV" in document["infotexts"][0]
    assert document["clip_skip"] == 2
    post(client)
    assert engine.specs[1].clip_skip == 1
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1


@pytest.mark.parametrize(
    "name", ["sub/bar.safetensors", "sub_bar", "bar", "e3b0c442", "sub/bar.safetensors [e3b0c442]"]
)
def test_a_checkpoint_is_overridden_by_any_of_its_exact_names(client: TestClient, name: str) -> None:
    assert info(client, override_settings={"sd_model_checkpoint": name})["sd_model_name"] == "bar"


@pytest.mark.parametrize("name", ["galaxytimemachinesGTM_photoV20", "bar.safetensors", "BAR"])
def test_an_unknown_checkpoint_in_overrides_is_dropped_and_named(client: TestClient, name: str) -> None:
    answer = client.post(ROUTE, json={"override_settings": {"sd_model_checkpoint": name}})
    assert json.loads(answer.json()["info"])["sd_model_name"] == "small-a"
    assert name in answer.headers["X-Darkroom-Warnings"]


def test_an_empty_checkpoint_in_overrides_means_nothing(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"override_settings": {"sd_model_checkpoint": ""}})
    assert answer.status_code == 200
    assert "X-Darkroom-Warnings" not in answer.headers


def test_fields_without_effect_are_named(client: TestClient) -> None:
    fields = {
        "override_settings": {"nonsense\r\nX: 1": 1, "hypertile_max_tile_unet": 64, "ldsr_steps": 100},
        "override_settings_restore_afterwards": False,
        "alwayson_scripts": {"ControlNet": {"args": []}},
    }
    ignored = client.post(ROUTE, json=fields).headers["X-Darkroom-Ignored"].split(", ")
    assert ignored == [
        "override_settings_restore_afterwards",
        "override_settings.nonsense??X: 1",
        "override_settings.hypertile_max_tile_unet",
    ]


def test_tags_of_extra_networks_are_named_unless_they_were_switched_off(client: TestClient, engine: FakeEngine) -> None:
    fields = {"prompt": "a cat <lora:detail:0.5> <odd:1>"}
    headers = client.post(ROUTE, json=fields).headers
    assert headers["X-Darkroom-Ignored"] == "prompt <odd:1>"
    assert headers["X-Darkroom-Warnings"] == "Lora not found: detail"
    headers = client.post(ROUTE, json={**fields, "disable_extra_networks": True}).headers
    assert not {"x-darkroom-ignored", "x-darkroom-warnings"} & set(headers)
    assert engine.specs[0].prompt == fields["prompt"]


def test_a_request_with_every_default_spelled_out_names_nothing(client: TestClient) -> None:
    echo = post(client)["parameters"]
    answer = client.post(ROUTE, json=echo)
    assert answer.status_code == 200
    assert "X-Darkroom-Ignored" not in answer.headers


def test_send_images_false_sends_no_pictures_but_a_whole_info(client: TestClient) -> None:
    body = post(client, send_images=False)
    assert body["images"] == []
    assert len(json.loads(body["info"])["infotexts"]) == 1


def test_save_images_writes_dated_files_and_puts_the_grid_first(client: TestClient, tmp_path: Path) -> None:
    body = post(client, seed=7, batch_size=2, width=64, height=64, save_images=True)
    assert json.loads(body["info"])["index_of_first_image"] == 1
    assert [from_base64(image).size for image in body["images"]] == [(128, 64), (64, 64), (64, 64)]
    names = sorted(path.name for path in (tmp_path / "outputs").rglob("*.png"))
    assert names == ["00000-7.png", "00001-8.png", "grid-0000.png"]


def test_a_plain_request_writes_nothing_and_has_no_grid(client: TestClient, tmp_path: Path) -> None:
    body = post(client, batch_size=2)
    assert len(body["images"]) == 2
    assert json.loads(body["info"])["index_of_first_image"] == 0
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["jpg", "webp", "avif", "PNG"])
def test_the_format_of_answers_is_the_servers_whatever_a_request_overrides(client: TestClient, name: str) -> None:
    client.post("/sdapi/v1/options", json={"samples_format": name})
    picture = from_base64(post(client, override_settings={"samples_format": "webp"})["images"][0])
    assert picture.format == {"jpg": "JPEG"}.get(name, name.upper())
    assert "Steps: 50" in read_notes(picture)[0]


def test_pnginfo_can_be_switched_off(client: TestClient) -> None:
    body = post(client, override_settings={"enable_pnginfo": False})
    assert "parameters" not in from_base64(body["images"][0]).info


def test_entries_of_the_generation_text_can_be_switched_off(client: TestClient) -> None:
    off = dict.fromkeys(("add_model_hash_to_info", "add_model_name_to_info", "add_version_to_infotext"), False)
    text = info(client, seed=1, override_settings=off)["infotexts"][0]
    assert text.endswith("Size: 512x512")


@pytest.mark.parametrize(
    ("fields", "eta", "entry"),
    [
        ({"sampler_name": "Euler a"}, 1.0, None),
        ({"sampler_name": "Euler a", "eta": 0}, 0.0, "Eta: 0.0"),
        ({"sampler_name": "DDIM"}, 0.0, None),
        ({"sampler_name": "DDIM", "eta": 0.7}, 0.7, "Eta DDIM: 0.7"),
        ({"sampler_name": "DDIM", "override_settings": {"eta_ddim": 0.5}}, 0.5, "Eta DDIM: 0.5"),
    ],
)
def test_eta_comes_from_the_request_or_the_option_of_its_family(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], eta: float, entry: str | None
) -> None:
    text = info(client, **fields)["infotexts"][0]
    assert engine.specs[0].eta == eta
    assert (entry in text) if entry else ("Eta" not in text)


def test_a_churn_option_that_is_not_neutral_beats_the_request_and_is_recorded(
    client: TestClient, engine: FakeEngine
) -> None:
    assert "Sigma" not in info(client, s_churn=10, s_tmin=0.1)["infotexts"][0]
    assert (engine.specs[0].s_churn, engine.specs[0].s_tmin, engine.specs[0].s_tmax) == (10, 0.1, float("inf"))
    text = info(client, s_churn=10, override_settings={"s_churn": 3})["infotexts"][0]
    assert engine.specs[1].s_churn == 3
    assert "Sigma churn: 3," in text


def test_comments_are_neither_drawn_nor_recorded(client: TestClient, engine: FakeEngine) -> None:
    fields = {"prompt": "a cat # not a dog\non a sofa", "negative_prompt": "# nothing"}
    body = post(client, **fields)
    assert engine.specs[0].prompt == json.loads(body["info"])["prompt"] == "a cat \non a sofa"
    assert not engine.specs[0].negative_prompt.strip()
    assert body["parameters"]["prompt"] == fields["prompt"]
    post(client, **fields, override_settings={"enable_prompt_comments": False})
    assert engine.specs[1].prompt == fields["prompt"]


def test_the_answer_names_its_job(client: TestClient) -> None:
    names = {client.post(ROUTE, json={}).headers["X-Job-Id"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch("[0-9a-f]{24}", name) for name in names)


def test_large_answers_are_zipped_for_clients_that_can_read_it(client: TestClient) -> None:
    assert client.post(ROUTE, json={}).headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in client.post(ROUTE, json={}, headers={"Accept-Encoding": "identity"}).headers


def test_no_checkpoint_at_all_is_said_plainly(serve: Serve, engine: FakeEngine) -> None:
    engine.models.clear()
    answer = serve().post(ROUTE, json={})
    assert answer.status_code == 503
    assert answer.json()["code"] == "no_checkpoint"
