"""What requests say to checkpoints of SDXL's family, and what the text tells of them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.jobs.networks import EmbeddingInfo
from darkroom.jobs.spec import CheckpointInfo, Family, JobSpec, SdxlOptions, Traits
from tests.unit.api.conftest import noise, to_base64
from tests.unit.api.fake_engine import MODELS, FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
SMALL: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "seed": 1}


def of(family: Family, **fields: Any) -> CheckpointInfo:
    return replace(MODELS[0], traits=Traits(family=family, **fields))


def post(client: TestClient, path: str = TXT2IMG, **fields: Any) -> dict[str, Any]:
    """The `info` document of the answer."""
    answer = client.post(path, json=SMALL | fields)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = json.loads(answer.json()["info"])
    return document


def spec(client: TestClient, engine: FakeEngine, **options: Any) -> JobSpec:
    post(client, override_settings=options)
    return engine.specs[-1]


def test_options_say_what_the_networks_are_told_beside_the_text(client: TestClient, engine: FakeEngine) -> None:
    assert spec(client, engine).sdxl == SdxlOptions()
    made = spec(
        client,
        engine,
        sdxl_crop_top=64,
        sdxl_crop_left=32,
        sdxl_refiner_high_aesthetic_score=9,
        sdxl_refiner_low_aesthetic_score=1.5,
        sdxl_clip_l_skip=True,
    )
    assert made.sdxl == SdxlOptions(crop_top=64, crop_left=32, high_score=9.0, low_score=1.5, clip_l_skip=True)


@pytest.mark.parametrize("option", ["sdxl_crop_top", "sdxl_refiner_low_aesthetic_score"])
def test_numbers_that_no_network_was_trained_on_are_refused(client: TestClient, option: str) -> None:
    answer = client.post(TXT2IMG, json=SMALL | {"override_settings": {option: 10**40}})
    assert answer.status_code == 422
    assert option in answer.text


def old_emphasis(client: TestClient, **fields: Any) -> int:
    answer = client.post(
        TXT2IMG, json=SMALL | fields | {"override_settings": {"use_old_emphasis_implementation": True}}
    )
    if answer.status_code != 200:
        assert "use_old_emphasis_implementation" in answer.text
    return answer.status_code


@pytest.mark.parametrize("family", ["sd2", "sdxl", "refiner"])
def test_old_emphasis_is_refused_for_openclip(client: TestClient, engine: FakeEngine, family: Family) -> None:
    assert old_emphasis(client) == 200
    engine.models = [MODELS[0], replace(MODELS[1], traits=Traits(family=family))]
    hires: dict[str, Any] = {"enable_hr": True, "denoising_strength": 0.5}
    assert old_emphasis(client, **hires) == 200
    assert old_emphasis(client, **hires, hr_checkpoint_name="bar") == 422
    assert old_emphasis(client, refiner_checkpoint="bar", refiner_switch_at=0.5) == 422
    engine.models = [of(family)]
    assert old_emphasis(client) == 422


@pytest.mark.parametrize(("family", "times"), [("sd1", 1), ("sdxl", 2), ("refiner", 1)])
def test_each_text_encoder_tells_of_an_embedding(
    client: TestClient, engine: FakeEngine, family: Family, times: int
) -> None:
    engine.models = [of(family)]
    engine.shelf.embeddings = [
        EmbeddingInfo(name="style", filename="style.pt", short_hash="0123456789ab", vectors=1, width=768)
    ]
    told = post(client, prompt="a style", negative_prompt="")["extra_generation_params"]["TI hashes"]
    assert told == ", ".join(["style: 0123456789ab"] * times)


@pytest.mark.parametrize(("family", "told"), [("sd1", True), ("sdxl", False)])
def test_a_mask_counts_in_the_text_where_the_checkpoint_is_shown_one(
    client: TestClient, engine: FakeEngine, family: Family, told: bool
) -> None:
    engine.models = [of(family, conditioning="inpaint")]
    blank = post(client)
    assert ("Conditional mask weight" in blank["infotexts"][0]) == told
    assert blank["is_using_inpainting_conditioning"] == told
    hires: dict[str, Any] = {"enable_hr": True, "denoising_strength": 0.5}
    latent, enlarged = (post(client, hr_upscaler=name, **hires) for name in ("Latent", "Lanczos"))
    assert ("Conditional mask weight" in latent["infotexts"][0]) == told
    assert "Conditional mask weight: 1.0" in enlarged["infotexts"][0]
    start = post(client, IMG2IMG, init_images=[to_base64(noise(64, 64))])
    assert "Conditional mask weight: 1.0" in start["infotexts"][0]
    assert start["is_using_inpainting_conditioning"]


def test_the_decoder_is_chosen_by_an_option(client: TestClient, engine: FakeEngine) -> None:
    assert spec(client, engine).model.decoder == "Full"
    assert spec(client, engine, sd_vae_decode_method="Approx cheap").model.decoder == "Approx cheap"


def test_a_smaller_picture_is_not_laid_over_a_larger_one(client: TestClient) -> None:
    picture = to_base64(noise(64, 64))
    body = {"init_images": [picture], "mask": picture, "override_settings": {"sd_vae_decode_method": "Approx cheap"}}
    answer = client.post(IMG2IMG, json=SMALL | body)
    assert answer.status_code == 422
    assert "sd_vae_decode_method" in answer.text


def test_a_latent_goes_to_no_checkpoint_of_other_latents(client: TestClient, engine: FakeEngine) -> None:
    engine.models = [of("sdxl"), replace(MODELS[1], traits=Traits(family="sd3", latent_channels=16))]
    asked = SMALL | {"enable_hr": True, "denoising_strength": 0.5, "hr_checkpoint_name": "bar"}
    refused = client.post(TXT2IMG, json=asked | {"hr_upscaler": "Latent"})
    assert refused.status_code == 422
    assert "hr_upscaler" in refused.text
    assert client.post(TXT2IMG, json=asked | {"hr_upscaler": "Lanczos"}).status_code == 200


def test_a_refiner_of_other_latents_is_refused(client: TestClient, engine: FakeEngine) -> None:
    engine.models = [of("sdxl"), replace(MODELS[1], traits=Traits(family="sd3", latent_channels=16))]
    answer = client.post(TXT2IMG, json=SMALL | {"refiner_checkpoint": "bar", "refiner_switch_at": 0.5})
    assert answer.status_code == 422
    assert "refiner_checkpoint" in answer.text
