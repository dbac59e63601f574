import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from darkroom.api.convert import Prepared, to_spec
from darkroom.api.infotext import fill
from darkroom.api.models import Generation, Img2Img, Txt2Img
from darkroom.api.results import describe
from darkroom.errors import BadRequest
from darkroom.jobs.spec import Hires, JobSpec
from darkroom.options.values import OptionValues
from darkroom.sampling.names import SAMPLERS, SCHEDULERS, effective_scheduler, get_sampler
from darkroom.settings import Settings
from tests.unit.api.conftest import noise, to_base64
from tests.unit.api.fake_engine import MODELS, FakeEngine

VALUES = OptionValues()
SETTINGS = Settings(data_dir=Path("nowhere"))
TEXT = "a cat\nNegative prompt: dog\nSteps: 7, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x72"


def filled(fields: dict[str, Any], **options: Any) -> Any:
    return fill(Txt2Img(**fields), VALUES.merged(options), SETTINGS, MODELS).wire


def prepared(wire: Generation) -> Prepared:
    return to_spec(wire, VALUES, SETTINGS, MODELS, FakeEngine())


def come_back(spec: JobSpec) -> JobSpec:
    """The spec, less what a text does not say or says otherwise: a schedule is called what it is."""
    schedule = effective_scheduler(get_sampler(spec.sampler), spec.scheduler)
    return replace(spec, scheduler=schedule, task_id="", subseeds=())


def test_a_text_fills_in_what_was_not_sent() -> None:
    wire = filled({"infotext": TEXT, "seed": 9})
    assert (wire.prompt, wire.negative_prompt, wire.steps, wire.cfg_scale) == ("a cat", "dog", 7, 3.0)
    assert (wire.sampler_name, wire.scheduler, wire.width, wire.height) == ("Euler a", "Automatic", 64, 72)
    assert wire.seed == 9
    assert wire.enable_hr is False
    assert wire.override_settings == {}


@pytest.mark.parametrize("sent", [{"prompt": ""}, {"steps": 50}, {"sampler_name": None}])
def test_what_was_sent_stays_even_if_it_is_the_default(sent: dict[str, Any]) -> None:
    [(name, value)] = sent.items()
    assert getattr(filled({"infotext": TEXT, **sent}), name) == value


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_text_nothing_changes(text: str | None) -> None:
    wire = Txt2Img(infotext=text, prompt="x")
    assert fill(wire, VALUES, SETTINGS, MODELS).wire is wire


def test_a_text_without_a_sampler_means_the_first_one() -> None:
    wire = filled({"infotext": "a\nSteps: 7, Seed: 5, Size: 64x72"})
    assert (wire.sampler_name, wire.scheduler) == ("DPM++ 2M", "Automatic")


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ("Sampler: DPM++ 2M Karras", ("DPM++ 2M", "Automatic")),
        ("Sampler: Euler Karras", ("Euler", "Karras")),
        ("Sampler: DPM++ 2M, Schedule type: Karras", ("DPM++ 2M", "Automatic")),
        ("Sampler: Euler, Schedule type: Karras", ("Euler", "Karras")),
    ],
)
def test_a_sampler_s_own_schedule_is_automatic(entries: str, names: tuple[str, str]) -> None:
    wire = filled({"infotext": f"a\nSteps: 7, Seed: 5, {entries}"})
    assert (wire.sampler_name, wire.scheduler) == names


def test_sizes_that_the_seed_was_drawn_for_are_not_crossed() -> None:
    wire = filled({"infotext": TEXT + ", Seed resize from: 96x128"})
    assert (wire.seed_resize_from_w, wire.seed_resize_from_h) == (96, 128)


def test_a_second_pass_is_asked_for_by_its_strength() -> None:
    hires = "Denoising strength: 0.6, Hires upscale: 1.5, Hires upscaler: Latent, Hires sampler: DPM++ 2M Karras"
    wire = filled({"infotext": f"{TEXT}, {hires}"})
    assert wire.enable_hr is True
    assert (wire.denoising_strength, wire.hr_scale, wire.hr_upscaler) == (0.6, 1.5, "Latent")
    assert (wire.hr_sampler_name, wire.hr_scheduler) == ("DPM++ 2M", None)


def test_a_second_pass_with_the_first_one_s_sampler_names_none() -> None:
    wire = filled({"infotext": f"{TEXT}, Denoising strength: 0.6"})
    assert (wire.hr_sampler_name, wire.hr_scheduler) == (None, None)


def test_options_become_overrides_where_they_differ() -> None:
    text = f"{TEXT}, Clip skip: 2, RNG: NV, Eta: 0.5, Tiling: True, VAE Encoder: Full, Version: v1.10.1"
    wire = filled({"infotext": text, "override_settings": {"randn_source": "CPU"}})
    assert wire.override_settings == {
        "CLIP_stop_at_last_layers": 2,
        "randn_source": "CPU",
        "eta_ancestral": 0.5,
        "tiling": True,
    }
    assert filled({"infotext": f"{TEXT}, Clip skip: 2"}, CLIP_stop_at_last_layers=2).override_settings == {}


def test_both_names_of_an_entry_are_known() -> None:
    for name in ("schedule", "scheduler"):
        overrides = filled({"infotext": f"{TEXT}, Beta {name} alpha: 0.8"}).override_settings
        assert float(overrides["beta_dist_alpha"]) == 0.8


def test_the_checkpoint_is_taken_over_only_if_that_is_wanted() -> None:
    text = f"{TEXT}, Model hash: {MODELS[0].short_hash}"
    assert filled({"infotext": text}).override_settings == {}
    overrides = filled({"infotext": text}, disable_weights_auto_swap=False).override_settings
    assert overrides == {"sd_model_checkpoint": MODELS[0].short_hash}


def test_styles_come_back_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text("name,prompt\noil,oil of {prompt}\n")
    wire = Txt2Img(infotext=TEXT.replace("a cat", "oil of a cat"))
    found = fill(wire, VALUES, Settings(data_dir=tmp_path), MODELS).wire
    assert (found.prompt, found.styles) == ("a cat", ["oil"])


def test_a_refiner_is_looked_up_loosely() -> None:
    wire = filled({"infotext": f"{TEXT}, Refiner: bar [0123456789], Refiner switch at: 0.8"})
    assert (wire.refiner_checkpoint, wire.refiner_switch_at) == (MODELS[1].title, 0.8)
    unknown = fill(Txt2Img(infotext=f"{TEXT}, Refiner: nobody"), VALUES, SETTINGS, MODELS)
    assert unknown.wire.refiner_checkpoint is None
    assert "nobody" in unknown.warnings[0]


@pytest.mark.parametrize("entry", ["Steps: many", "Clip skip: 0", "Emphasis: loud", "Size: 1"])
def test_an_entry_that_cannot_be_is_named(entry: str) -> None:
    text = f"a\n{entry}, Seed: 5, CFG scale: 7"
    if entry == "Size: 1":
        assert filled({"infotext": text}).width == 512
    else:
        with pytest.raises(BadRequest, match=rf"infotext.*{entry.split(': ')[1]}"):
            filled({"infotext": text})


def test_img2img_takes_little_from_a_text() -> None:
    wire = Img2Img(infotext=f"{TEXT}, Denoising strength: 0.3", init_images=[to_base64(noise(8, 8))])
    found = fill(wire, VALUES, SETTINGS, MODELS).wire
    assert (found.steps, found.sampler_name, found.seed) == (7, "Euler a", 5)
    assert (found.prompt, found.width, found.denoising_strength, found.cfg_scale) == ("", 512, 0.75, 7.0)


def test_soft_inpainting_is_taken_over_into_img2img() -> None:
    names = ("schedule bias", "preservation strength", "transition contrast boost", "mask influence")
    text = ", ".join(f"Soft inpainting {name}: {n}" for n, name in enumerate(names))
    text += ", Soft inpainting difference threshold: 4, Soft inpainting difference contrast: 5"
    wire = Img2Img(infotext=f"{TEXT}, Soft inpainting enabled: True, {text}")
    scripts = fill(wire, VALUES, SETTINGS, MODELS).wire.alwayson_scripts
    assert scripts == {"Soft inpainting": {"args": [True, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}}


def test_a_request_with_a_text_is_echoed_filled_in(client: TestClient, engine: FakeEngine) -> None:
    body = client.post("/sdapi/v1/txt2img", json={"infotext": TEXT}).json()
    assert engine.specs[0].prompt == "a cat"
    assert body["parameters"]["prompt"] == "a cat"
    assert body["parameters"]["override_settings"] == {}


prompts = st.text("ab ,.(猫ä", max_size=12).map(str.strip)

requests = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "negative_prompt": prompts,
        "seed": st.integers(0, 2**40),
        "steps": st.integers(3, 150),  # fewer are too few for UniPC
        "cfg_scale": st.floats(0, 30),
        "width": st.integers(8, 64).map(lambda n: n * 8),
        "height": st.integers(8, 64).map(lambda n: n * 8),
        "sampler_name": st.sampled_from([sampler.name for sampler in SAMPLERS]),
        "scheduler": st.sampled_from([scheduler.label for scheduler in SCHEDULERS]),
        "override_settings": st.fixed_dictionaries(
            {},
            optional={
                "CLIP_stop_at_last_layers": st.integers(1, 12),
                "randn_source": st.sampled_from(["GPU", "CPU", "NV"]),
                "emphasis": st.sampled_from(["Original", "No norm"]),
            },
        ),
    },
    optional={
        "subseed": st.integers(0, 2**32),
        "subseed_strength": st.floats(0.01, 1),
        "seed_resize_from_h": st.sampled_from([64, 128]),
        "seed_resize_from_w": st.sampled_from([64, 192]),
    },
)


@settings(max_examples=60, deadline=None)
@given(fields=requests)
def test_a_request_comes_back_from_its_text(fields: dict[str, Any]) -> None:
    first = prepared(Txt2Img(**fields))
    again = prepared(fill(Txt2Img(infotext=describe(first, 0)), VALUES, SETTINGS, MODELS).wire)
    if "(" not in fields["prompt"] + fields["negative_prompt"]:
        again = replace(again, spec=replace(again.spec, emphasis=first.spec.emphasis))  # then it changes nothing
    assert come_back(again.spec) == come_back(first.spec)
    if first.spec.subseed_strength:
        assert again.spec.subseeds == first.spec.subseeds


def test_recorded_texts_are_read_as_the_original_reads_them(recordings: Path) -> None:
    from darkroom.jobs.infotext import read

    for name in ("none", "generated", "hires", "jpeg"):
        body = json.loads((recordings / f"cases/pnginfo_{name}.response.json").read_text())["body"]
        assert read(body["info"]) == body["parameters"]


UNTOLD = """
    churn_euler unipc_bh2 unipc_vary unipc_quad_nolof quantization old_karras_sigmas sde_no_batch_determinism
    ensd_sde override_checkpoint inpmodel_txt2img after_no_restore prompt_comment
""".split()
"""Recorded requests that ask for something of which their texts say nothing, or say it with other blanks."""


def recorded_txt2img(recordings: Path) -> list[tuple[str, dict[str, Any], str]]:
    """Name, request and first generation text of every recorded txt2img that is one job."""
    found = []
    for case in (recordings / "cases/order.txt").read_text().split():
        asked = json.loads((recordings / f"cases/{case}.json").read_text())
        answer = json.loads((recordings / f"cases/{case}.response.json").read_text())
        if asked["path"] == "/sdapi/v1/txt2img" and answer["status"] == 200 and not asked["body"].get("script_name"):
            found.append((case, asked["body"], json.loads(answer["body"]["info"])["infotexts"][0]))
    return found


def test_recorded_requests_come_back_from_their_texts(recordings: Path) -> None:
    names = ("small-a", "small-b", "small-inpainting")
    models = [replace(MODELS[0], key=name, path=f"{name}.safetensors", sha256=name * 8) for name in names]
    where, engine = Settings(data_dir=recordings), FakeEngine(models)
    cases = recorded_txt2img(recordings)
    assert len(cases) > 100
    for case, body, text in cases:
        counts = {name: body[name] for name in ("batch_size", "n_iter") if name in body}
        first = to_spec(Txt2Img(**body), VALUES, where, models, engine).spec
        wire = fill(Txt2Img(infotext=text, **counts), VALUES, where, models).wire
        again = to_spec(wire, VALUES, where, models, engine).spec
        if case not in UNTOLD:
            assert hires_apart(again) == hires_apart(first), case


def hires_apart(spec: JobSpec) -> tuple[JobSpec, dict[str, Any]]:
    """The spec as it comes back, and its second pass as a mapping with a schedule that is called what it is."""
    second = {name: getattr(spec.hires, name) for name in Hires.__slots__} if spec.hires else {}
    if second:
        second["scheduler"] = effective_scheduler(get_sampler(second["sampler"]), second["scheduler"])
    return replace(come_back(spec), hires=None, params=()), second
