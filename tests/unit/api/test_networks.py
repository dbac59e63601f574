"""What a request takes in beside its checkpoint: adapters, embeddings, an autoencoder; and their lists."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.api.convert import Prepared, to_spec
from darkroom.api.models import Img2Img, Txt2Img
from darkroom.api.networks import adapters_of, choose_vae, token_merging
from darkroom.jobs.networks import AdapterInfo, EmbeddingInfo, HypernetworkInfo, VaeInfo
from darkroom.jobs.spec import Adapter
from darkroom.options.values import OptionValues
from darkroom.settings import Settings
from tests.unit.api.fake_engine import MODELS, FakeEngine, Shelf

VALUES = OptionValues()


def adapter(name: str, alias: str = "") -> AdapterInfo:
    return AdapterInfo(name=name, alias=alias or name, filename=f"/lora/{name}.safetensors", metadata={})


def embedding(name: str, width: int = 768) -> EmbeddingInfo:
    return EmbeddingInfo(name=name, filename=f"/e/{name}.pt", short_hash=f"hash-{name}", vectors=2, width=width)


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.shelf = Shelf(
        adapters=[adapter("one", "first"), adapter("two")],
        autoencoders=[VaeInfo(name=name, filename=f"/vae/{name}") for name in ("other.pt", "small-a.vae.pt")],
        embeddings=[embedding("bad"), embedding("good"), embedding("wide", 2048)],
        hashes={"one": "1" * 12, "two": "2" * 12, "other.pt": "3" * 10, "small-a.vae.pt": "4" * 10},
    )
    return engine


def prepare(engine: FakeEngine, *, options: dict[str, Any] | None = None, **fields: Any) -> Prepared:
    models = [replace(model, text_width=768) for model in MODELS]
    wire = Txt2Img(**{"prompt": "a cat", **fields})
    return to_spec(wire, VALUES.merged(options or {}), Settings(data_dir=Path("nowhere")), models, engine)


@pytest.mark.parametrize(
    ("tag", "text", "unet", "rank"),
    [
        ("<lora:one>", 1.0, 1.0, None),
        ("<lora:one:0.5>", 0.5, 0.5, None),
        ("<lora:one:0.5:0.8>", 0.5, 0.8, None),
        ("<lora:one:te=0:unet=1>", 0.0, 1.0, None),
        ("<lora:one:unet=0.5>", 1.0, 0.5, None),
        ("<lora:one:te=0.3>", 0.3, 0.3, None),
        ("<lora:one:1:1:32>", 1.0, 1.0, 32),
        ("<lora:one:0.5:dyn=2>", 0.5, 0.5, 2),
        ("<lora:one:-1>", -1.0, -1.0, None),
        ("<lyco:first:0.5>", 0.5, 0.5, None),
    ],
)
def test_strengths_are_read_by_place_and_by_name(
    engine: FakeEngine, tag: str, text: float, unet: float, rank: int | None
) -> None:
    assert adapters_of(f"a {tag} b", VALUES, engine).adapters == (Adapter(name="one", text=text, unet=unet, rank=rank),)


def test_blocks_may_have_strengths_of_their_own(engine: FakeEngine) -> None:
    [one] = adapters_of("<lora:one:0.5:lbw=OUTALL> a", VALUES, engine).adapters
    assert (one.unet, dict(one.blocks)["OUT03"], dict(one.blocks)["IN04"]) == (0.5, 1.0, 0.0)


def test_blocks_that_cannot_be_read_leave_the_adapter_as_it_is_with_a_warning(engine: FakeEngine) -> None:
    chosen = adapters_of("<lora:one:0.5:lbw=1,2,3> a", VALUES, engine)
    assert chosen.adapters == (Adapter(name="one", unet=0.5, text=0.5),)
    assert "12, 17, 20, 26 numbers" in chosen.warnings[0]


@pytest.mark.parametrize(
    "tag", ["<lora:one:x>", "<lora:one:nan>", "<lora:one:1:1:2.5>", "<lora:te=1>", "<lora:one:1e999>"]
)
def test_a_tag_that_cannot_be_read_keeps_all_adapters_out(engine: FakeEngine, tag: str) -> None:
    chosen = adapters_of(f"<lora:two:1> {tag}", VALUES, engine)
    assert chosen.adapters == ()
    assert chosen.warnings


def test_the_last_of_several_tags_of_one_name_sets_the_strength_of_all(engine: FakeEngine) -> None:
    chosen = adapters_of("<lora:one:0.2> <lora:two:1> <lora:one:0.6>", VALUES, engine)
    assert [(one.name, one.unet) for one in chosen.adapters] == [("one", 0.6), ("two", 1.0), ("one", 0.6)]


def test_tags_of_the_word_that_comes_first_stand_first(engine: FakeEngine) -> None:
    chosen = adapters_of("<lyco:two:1> <lora:one:1> <lyco:first:2>", VALUES, engine)
    assert [one.name for one in chosen.adapters] == ["two", "one", "one"]
    assert [one.unet for one in chosen.adapters] == [1.0, 2.0, 1.0]


def test_the_text_tells_hashes_by_the_names_that_the_prompt_uses(engine: FakeEngine) -> None:
    told = prepare(engine, prompt="<lora:first:1> <lora:gone:1> x <lora:two:1>")
    assert told.extra["Lora hashes"] == "first: 111111111111, two: 222222222222"
    assert told.warnings == ("Lora not found: gone",)
    assert (
        "Lora hashes"
        not in prepare(engine, prompt="<lora:one:1>", options={"lora_add_hashes_to_infotext": False}).extra
    )


def test_tags_in_a_negative_prompt_are_text_and_switched_off_ones_do_nothing(engine: FakeEngine) -> None:
    switched_off: dict[str, Any] = {"prompt": "<lora:one:1>", "disable_extra_networks": True}
    for fields in ({"negative_prompt": "<lora:one:1>"}, switched_off):
        told = prepare(engine, **fields)
        assert told.spec.adapters == ()
        assert told.extra == {}
        assert told.warnings == ()


def test_a_second_pass_has_the_adapters_of_its_own_prompt(engine: FakeEngine) -> None:
    fields: dict[str, Any] = {"enable_hr": True, "denoising_strength": 0.5, "hr_upscaler": "Latent"}
    told = prepare(engine, prompt="<lora:one:1>", hr_prompt="<lora:two:1>", **fields)
    assert told.spec.hires is not None
    assert [one.name for one in (*told.spec.adapters, *told.spec.hires.adapters)] == ["one", "two"]
    assert told.extra["Lora hashes"] == "one: 111111111111, two: 222222222222"
    same = prepare(engine, prompt="<lora:one:1>", **fields).spec
    assert same.hires is not None
    assert same.hires.adapters == same.adapters


def test_an_adapter_for_all_prompts_is_added_to_the_prompt_once(engine: FakeEngine) -> None:
    options = {"sd_lora": "two", "extra_networks_default_multiplier": 0.5}
    assert prepare(engine, options=options).spec.prompt == "a cat<lora:two:0.5>"
    assert prepare(engine, options=options, prompt="<lora:two:1>").spec.prompt == "<lora:two:1>"
    assert prepare(engine, options={"sd_lora": "gone"}).spec.prompt == "a cat"


def test_hypernetworks_are_chosen_by_tag_and_by_option(engine: FakeEngine) -> None:
    engine.shelf.hypernetworks = [HypernetworkInfo(name="h", filename="/h.pt")]
    told = prepare(engine, prompt="a <hypernet:h:0.5> <hypernet:gone> <hypernet:h>")
    assert [(one.kind, one.name, one.unet) for one in told.spec.adapters] == [
        ("hypernetwork", "h", 0.5), ("hypernetwork", "h", 1.0),
    ]  # fmt: skip
    assert told.warnings == ("Hypernetwork not found: gone",)
    assert told.extra == {}
    assert prepare(engine, options={"sd_hypernetwork": "h"}).spec.prompt == "a cat<hypernet:h:1.0>"
    assert prepare(engine, options={"sd_hypernetwork": "gone"}).spec.prompt == "a cat"
    assert prepare(engine, prompt="<hypernet:h:x>").spec.adapters == ()


def test_embeddings_are_told_text_by_text_the_newest_first(engine: FakeEngine) -> None:
    told = prepare(engine, prompt="good cat AND bad dog wide", negative_prompt="bad hand")
    assert told.extra["TI hashes"] == "bad: hash-bad, good: hash-good, bad: hash-bad"
    assert "TI hashes" not in prepare(engine, prompt="a cat").extra
    options = {"textual_inversion_add_hashes_to_infotext": False}
    assert "TI hashes" not in prepare(engine, prompt="good", options=options).extra


def test_the_notes_stand_in_the_order_in_which_they_come_up(engine: FakeEngine) -> None:
    options = {"emphasis": "No norm"}
    told = prepare(engine, prompt="(good) <lora:one:1>", options=options)
    assert list(told.extra)[:3] == ["Lora hashes", "TI hashes", "Emphasis"]


@pytest.mark.parametrize(
    ("option", "overrides", "wish", "chosen"),
    [
        ("other.pt", True, None, "other.pt"),
        ("None", True, "other.pt", ""),
        ("gone.pt", True, None, ""),
        ("Automatic", True, None, "small-a.vae.pt"),
        ("Automatic", True, "other.pt", "other.pt"),
        ("Automatic", True, "None", ""),
        ("Automatic", True, "gone.pt", "small-a.vae.pt"),
        ("other.pt", False, None, "small-a.vae.pt"),
        ("other.pt", False, "None", ""),
        ("None", False, "other.pt", "other.pt"),
    ],
)
def test_an_autoencoder_is_chosen_by_option_by_wish_and_by_name(
    engine: FakeEngine, option: str, overrides: bool, wish: str | None, chosen: str
) -> None:
    values = VALUES.merged({"sd_vae": option, "sd_vae_overrides_per_model_preferences": overrides})
    assert choose_vae(replace(MODELS[0], preferred_vae=wish), values, engine).name == chosen


@pytest.mark.parametrize("option", ["Automatic", "None", "other.pt"])
def test_the_autoencoder_of_the_flag_is_used_whatever_else_is_asked_for(engine: FakeEngine, option: str) -> None:
    engine.shelf.autoencoders.append(VaeInfo(name="mine.vae.pt", filename="/mine.vae.pt", always=True))
    values = VALUES.merged({"sd_vae": option})
    chosen = choose_vae(replace(MODELS[0], preferred_vae="None"), values, engine)
    assert (chosen.name, chosen.warnings) == ("mine.vae.pt", ())


def test_the_text_tells_an_autoencoder_that_is_not_the_checkpoints_own(engine: FakeEngine) -> None:
    told = prepare(engine, override_settings={"sd_vae": "other.pt"})
    assert dict(told.spec.params) == {"VAE hash": "3333333333", "VAE": "other.pt"}
    assert told.extra == {}
    assert prepare(engine, override_settings={"sd_vae": "None"}).spec.params == ()
    unknown = prepare(engine, override_settings={"sd_vae": "gone"})
    assert unknown.spec.vae == ""
    assert "gone" in unknown.warnings[0]


def test_the_second_pass_has_the_autoencoder_of_its_own_checkpoint(engine: FakeEngine) -> None:
    fields: dict[str, Any] = {"enable_hr": True, "denoising_strength": 0.5, "hr_checkpoint_name": "sub/bar.safetensors"}
    for option, first, second in (("Automatic", "small-a.vae.pt", ""), ("other.pt", "other.pt", "other.pt")):
        spec = prepare(engine, options={"sd_vae": option}, **fields).spec
        assert spec.hires is not None
        assert (spec.vae, spec.hires.vae) == (first, second)


@pytest.mark.parametrize(
    ("options", "fallback"),
    [
        ({}, "float32"),
        ({"auto_vae_precision": False}, "none"),
        ({"auto_vae_precision_bfloat16": True}, "bfloat16"),
    ],
)
def test_options_say_what_an_autoencoder_falls_back_to(
    engine: FakeEngine, options: dict[str, bool], fallback: str
) -> None:
    assert prepare(engine, options=options).spec.vae_fallback == fallback


@pytest.mark.parametrize(
    ("options", "overridden", "first", "second"),
    [
        ({"token_merging_ratio": 0.5}, {}, 0.5, 0.5),
        ({"token_merging_ratio": 0.5, "token_merging_ratio_hr": 0.3}, {}, 0.5, 0.3),
        ({"token_merging_ratio": 0.5, "token_merging_ratio_img2img": 0.2}, {}, 0.2, 0.2),
        ({"token_merging_ratio": 0.5, "token_merging_ratio_img2img": 0.2}, {"token_merging_ratio": 0.5}, 0.5, 0.5),
    ],
)
def test_img2img_may_merge_other_shares_of_tokens(
    options: dict[str, float], overridden: dict[str, float], first: float, second: float
) -> None:
    wire = Img2Img(init_images=["x"], override_settings=overridden)
    assert token_merging(wire, VALUES.merged(options)) == (first, second)
    ratio = options["token_merging_ratio"]
    assert token_merging(Txt2Img(), VALUES.merged(options))[0] == ratio


def test_tiling_is_the_requests_or_the_options(engine: FakeEngine) -> None:
    assert prepare(engine, tiling=True).spec.tiling
    assert prepare(engine, options={"tiling": True}).spec.tiling
    assert not prepare(engine, tiling=False, options={"tiling": True}).spec.tiling


def test_the_lists_look_as_clients_know_them(client: TestClient, engine: FakeEngine) -> None:
    engine.models = [replace(engine.models[0], text_width=768)]
    assert client.get("/sdapi/v1/loras").json()[0] == {
        "name": "one", "alias": "first", "path": "/lora/one.safetensors", "metadata": {},
    }  # fmt: skip
    assert client.get("/sdapi/v1/sd-vae").json()[0] == {"model_name": "other.pt", "filename": "/vae/other.pt"}
    assert client.get("/sdapi/v1/hypernetworks").json() == []
    embeddings = client.get("/sdapi/v1/embeddings").json()
    assert list(embeddings["loaded"]) == ["bad", "good"]
    assert embeddings["skipped"] == {
        "wide": {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 2048, "vectors": 2}
    }


def test_an_adapter_is_listed_with_the_words_that_it_answers_to(client: TestClient, engine: FakeEngine) -> None:
    first = engine.shelf.adapters
    first[0] = replace(first[0], activation_text="red sofa", preferred_weight=0.7)
    one = client.get("/sdapi/v1/loras").json()[0]
    assert (one["activation_text"], one["preferred_weight"]) == ("red sofa", 0.7)


@pytest.mark.parametrize("what", ["loras", "vae", "embeddings"])
def test_refreshing_looks_at_the_folders_again(client: TestClient, engine: FakeEngine, what: str) -> None:
    answer = client.post(f"/sdapi/v1/refresh-{what}")
    assert (answer.status_code, answer.json()) == (200, None)
    assert engine.refreshed == 1
