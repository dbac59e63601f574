"""The request of any tutorial, and what its answer must hold."""

import json

import pytest

from darkroom.sampling.names import SAMPLERS, SCHEDULERS
from tests.e2e.serving import Server, apart, picture, pixels

SMALL = {"prompt": "puppy dog", "steps": 4, "width": 64, "height": 64, "seed": 7}
DRAWN = SMALL | {"steps": 6, "width": 128, "height": 128}
"""Large enough to show something: below its native size the embedded model often leaves the paper white."""


def test_the_request_of_any_tutorial_gives_a_picture_with_its_parameters(server: Server) -> None:
    body = {"prompt": "puppy dog", "steps": 5, "width": 128, "height": 128, "seed": 1, "sampler_name": "Euler a"}
    answer = server.post("/sdapi/v1/txt2img", body)
    assert list(answer) == ["images", "parameters", "info"]
    image = picture(answer["images"][0])
    assert image.size == (128, 128)
    text = image.info["parameters"]
    assert text.startswith("puppy dog\nSteps: 5, Sampler: Euler a, ")
    assert "Seed: 1, Size: 128x128, " in text
    info = json.loads(answer["info"])
    assert info["seed"] == 1
    assert info["all_seeds"] == [1]
    assert info["infotexts"] == [text]
    assert answer["parameters"]["prompt"] == "puppy dog"


def test_width_and_height_left_out_mean_the_models_own_size(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", {"prompt": "apple", "steps": 2})
    size = picture(answer["images"][0]).size
    assert size in {(128, 128), (256, 256)}


def test_an_explicit_512_is_512(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", {"prompt": "apple", "steps": 1, "width": 512, "height": 512})
    assert picture(answer["images"][0]).size == (512, 512)


def test_the_same_seed_gives_the_same_picture_and_another_gives_another(server: Server) -> None:
    first = pixels(server.post("/sdapi/v1/txt2img", DRAWN)["images"][0])
    again = pixels(server.post("/sdapi/v1/txt2img", DRAWN)["images"][0])
    other = pixels(server.post("/sdapi/v1/txt2img", DRAWN | {"seed": 8})["images"][0])
    assert apart(first, again) < 0.5
    assert apart(first, other) > 2


def test_batch_and_n_iter_give_consecutive_seeds_each_reproducible_alone(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", SMALL | {"batch_size": 2, "n_iter": 2})
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert len(answer["images"]) == len(info["infotexts"]) == 4
    alone = server.post("/sdapi/v1/txt2img", SMALL | {"seed": 9})
    assert apart(pixels(alone["images"][0]), pixels(answer["images"][2])) < 1


@pytest.mark.parametrize("sampler", [sampler.name for sampler in SAMPLERS])
def test_every_sampler_is_listed_and_draws(server: Server, sampler: str) -> None:
    assert sampler in [entry["name"] for entry in server.get("/sdapi/v1/samplers")]
    answer = server.post("/sdapi/v1/txt2img", DRAWN | {"sampler_name": sampler})
    assert json.loads(answer["info"])["sampler_name"] == sampler
    assert pixels(answer["images"][0]).std() > 10


@pytest.mark.parametrize("label", [scheduler.label for scheduler in SCHEDULERS])
def test_every_schedule_is_listed_and_draws(server: Server, label: str) -> None:
    assert label in [entry["label"] for entry in server.get("/sdapi/v1/schedulers")]
    answer = server.post("/sdapi/v1/txt2img", SMALL | {"sampler_name": "DPM++ 2M", "scheduler": label})
    shown = "Karras" if label == "Automatic" else label
    assert f"Schedule type: {shown}," in json.loads(answer["info"])["infotexts"][0]


def test_attention_weights_change_the_picture(server: Server) -> None:
    plain = pixels(server.post("/sdapi/v1/txt2img", DRAWN)["images"][0])
    weighted = pixels(server.post("/sdapi/v1/txt2img", DRAWN | {"prompt": "puppy (dog:1.6)"})["images"][0])
    assert apart(plain, weighted) > 0.2


def test_a_json_body_without_a_content_type_is_read(server: Server) -> None:
    request = server.client.build_request("POST", "/sdapi/v1/txt2img", content=json.dumps(SMALL))
    request.headers.pop("content-type", None)
    assert server.client.send(request).status_code == 200


def test_numbers_in_strings_and_unknown_keys_are_accepted(server: Server) -> None:
    body = SMALL | {"seed": "7", "cfg_scale": "7.0", "steps": 4.0, "url": "x", "clip_skip": 1}
    assert json.loads(server.post("/sdapi/v1/txt2img", body)["info"])["seed"] == 7


def test_a_field_without_effect_yet_is_named_and_not_dropped_silently(server: Server) -> None:
    asked = {"override_settings_restore_afterwards": False, "override_settings": {"hypertile_enable_unet": True}}
    answer = server.client.post("/sdapi/v1/txt2img", json=SMALL | asked)
    assert answer.status_code == 200
    named = answer.headers["x-darkroom-ignored"]
    assert named == "override_settings_restore_afterwards, override_settings.hypertile_enable_unet"
    plain = server.client.post("/sdapi/v1/txt2img", json=SMALL)
    assert "x-darkroom-ignored" not in plain.headers
