"""What a request says about guidance reaches the job, and what the job says of it reaches the answer."""

import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.jobs.spec import CheckpointInfo, GuidanceOptions, JobSpec, Refiner, Traits
from tests.unit.api.conftest import noise, to_base64
from tests.unit.api.fake_engine import MODELS, FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"


def post(client: TestClient, **fields: Any) -> dict[str, Any]:
    """The `info` document of the answer."""
    answer = client.post(TXT2IMG, json={"steps": 4, "width": 64, "height": 64, "seed": 1, **fields})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = json.loads(answer.json()["info"])
    return document


def spec(client: TestClient, engine: FakeEngine, **fields: Any) -> JobSpec:
    post(client, **fields)
    return engine.specs[-1]


def special(**fields: Any) -> CheckpointInfo:
    return replace(MODELS[0], key="special", path="special.safetensors", **fields)


def test_a_plain_request_is_guided_plainly(client: TestClient, engine: FakeEngine) -> None:
    made = spec(client, engine, prompt="a cat")
    assert made.guidance == GuidanceOptions()
    assert made.refiner is None
    assert (made.old_emphasis, made.old_prompt_editing) == (False, False)


def test_options_say_when_the_negative_prompt_is_left_out(client: TestClient, engine: FakeEngine) -> None:
    options = {
        "s_min_uncond": 2,
        "s_min_uncond_all": True,
        "skip_early_cond": 0.25,
        "pad_cond_uncond": True,
        "pad_cond_uncond_v0": True,
    }
    expected = GuidanceOptions(s_min_uncond=2, s_min_uncond_all=True, skip_early=0.25, pad=True, pad_v0=True)
    assert spec(client, engine, override_settings=options).guidance == expected
    made = spec(client, engine, s_min_uncond=3, override_settings=options)
    assert made.guidance == replace(expected, s_min_uncond=3)


def test_numbers_of_a_request_keep_the_form_in_which_they_are_told(client: TestClient, engine: FakeEngine) -> None:
    by_option = spec(client, engine, override_settings={"s_min_uncond": 2, "skip_early_cond": 1}).guidance
    assert (str(by_option.s_min_uncond), str(by_option.skip_early)) == ("2", "1")
    assert str(spec(client, engine, s_min_uncond=2).guidance.s_min_uncond) == "2.0"


@pytest.mark.parametrize(
    "name", ["small-a", "sub/bar.safetensors", "bar", "e3b0c442", "/ba", "mall-a.safet", "bar [00]"]
)
def test_a_refiner_may_be_named_by_a_part_of_its_title(client: TestClient, engine: FakeEngine, name: str) -> None:
    made = spec(client, engine, refiner_checkpoint=name, refiner_switch_at=0.8)
    key = "small-a" if "mall" in name else "sub/bar"
    title = "small-a [76fc168833]" if "mall" in name else "bar"
    assert made.refiner == Refiner(checkpoint=key, title=title, switch_at=0.8)


@pytest.mark.parametrize("name", [None, "", "None", "none"])
def test_no_refiner_is_asked_for_in_many_ways(client: TestClient, engine: FakeEngine, name: str | None) -> None:
    assert spec(client, engine, refiner_checkpoint=name, refiner_switch_at=0.8).refiner is None


def test_options_say_how_the_refiner_is_switched(client: TestClient, engine: FakeEngine) -> None:
    options = {"refiner_switch_by_sample_steps": True, "hires_fix_refiner_pass": "both passes"}
    refiner = spec(client, engine, refiner_checkpoint="bar", override_settings=options).refiner
    assert refiner == Refiner(checkpoint="sub/bar", title="bar", switch_at=None, by_steps=True, passes="both passes")


@pytest.mark.parametrize("name", ["nope", "Small-A", "[00]"])
def test_an_unknown_refiner_is_refused_with_what_is_near(client: TestClient, name: str) -> None:
    answer = client.post(TXT2IMG, json={"refiner_checkpoint": name})
    assert answer.status_code == 404
    assert "refiner_checkpoint" in answer.text
    assert "small-a" in answer.text


def test_a_refiner_that_sees_more_than_the_checkpoint_is_refused(client: TestClient, engine: FakeEngine) -> None:
    engine.models.append(special(traits=Traits(conditioning="inpaint")))
    answer = client.post(TXT2IMG, json={"refiner_checkpoint": "special"})
    assert answer.status_code == 422
    assert "refiner_checkpoint" in answer.text


def test_what_the_job_notes_stands_in_the_text_and_in_the_document(client: TestClient, engine: FakeEngine) -> None:
    engine.notes = (("Refiner", "bar"), ("Refiner switch at", None), ("NGMS", 2.0))
    document = post(client, sampler_name="Euler a", eta=0.5)
    assert "Eta: 0.5, Refiner: bar, NGMS: 2.0, Version:" in document["infotexts"][0]
    extra = {"Eta": 0.5, "Refiner": "bar", "Refiner switch at": None, "NGMS": 2.0}
    assert document["extra_generation_params"] == extra


def test_switching_by_steps_is_noted_even_without_a_refiner(client: TestClient) -> None:
    document = post(client, override_settings={"refiner_switch_by_sample_steps": True})
    assert document["extra_generation_params"] == {"Refiner switch by sampling steps": True}


def old_rules(client: TestClient, prompt: str, **fields: Any) -> bool:
    document = post(client, prompt=prompt, override_settings={"use_old_scheduling": True}, **fields)
    return "Old prompt editing timelines" in document["extra_generation_params"]


def test_old_rules_of_prompt_editing_are_noted_where_they_matter(client: TestClient, engine: FakeEngine) -> None:
    assert not old_rules(client, "a [b:c:0.5]")
    assert engine.specs[-1].old_prompt_editing
    assert not old_rules(client, "a [b:c:3]")
    assert old_rules(client, "a [b:c:1.0]")
    assert old_rules(client, "a", negative_prompt="[b:c:1.0]")
    assert "Old prompt editing timelines" not in post(client, prompt="[b:c:1.0]")["extra_generation_params"]


def test_old_rules_are_compared_in_the_second_pass_too(client: TestClient) -> None:
    hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5}
    assert not old_rules(client, "a [b:c:0.5]")
    assert old_rules(client, "a [b:c:0.5]", **hires)


def emphasis_noted(client: TestClient, prompt: str, **options: Any) -> bool:
    document = post(client, prompt=prompt, override_settings={"emphasis": "Ignore", **options})
    return "Emphasis" in document["extra_generation_params"]


def test_the_way_of_emphasis_is_noted_where_an_encoded_text_has_brackets(client: TestClient) -> None:
    assert emphasis_noted(client, "a (cat)")
    assert emphasis_noted(client, "a [cat:(dog):3]")
    assert not emphasis_noted(client, "a [cat:dog:3]")
    assert not emphasis_noted(client, "a (cat)", use_old_emphasis_implementation=True)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_malformed_weight_is_refused(client: TestClient, field: str) -> None:
    answer = client.post(TXT2IMG, json={field: "a (cat:1.2.3)"})
    assert answer.status_code == 422
    assert field in answer.text
    assert "1.2.3" in answer.text


def test_where_brackets_are_text_no_weight_is_malformed(client: TestClient) -> None:
    post(client, prompt="a (cat:1.2.3)", override_settings={"emphasis": "None"})


def edit(client: TestClient, **fields: Any) -> Any:
    picture = to_base64(noise(64, 64))
    return client.post(IMG2IMG, json={"init_images": [picture], "width": 64, "height": 64, **fields})


def test_pictures_guide_on_editing_checkpoints_only(client: TestClient, engine: FakeEngine) -> None:
    assert edit(client, image_cfg_scale=1.5).status_code == 200
    assert engine.specs[-1].guidance.image_scale is None
    engine.models[:] = [special(traits=Traits(conditioning="edit"))]
    assert edit(client, image_cfg_scale=1.5).status_code == 200
    assert engine.specs[-1].guidance.image_scale == 1.5


def test_composed_prompts_and_guiding_pictures_exclude_each_other(client: TestClient, engine: FakeEngine) -> None:
    engine.models[:] = [special(traits=Traits(conditioning="edit"))]
    answer = edit(client, image_cfg_scale=1.5, prompt="a AND b")
    assert answer.status_code == 422
    assert "image_cfg_scale" in answer.text
    assert edit(client, image_cfg_scale=1, prompt="a AND b").status_code == 200
    assert edit(client, image_cfg_scale=None, prompt="a AND b").status_code == 200
