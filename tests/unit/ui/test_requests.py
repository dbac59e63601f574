from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.api.models import Txt2Img
from darkroom.ui.requests import (
    SAME_CHECKPOINT,
    SAME_SAMPLER,
    SAME_SCHEDULER,
    SERVERS_CHOICE,
    chosen_options,
    controls_of,
    hires_fields,
    read_overrides,
    shared_fields,
    with_styles,
    write_overrides,
)

NAMES = st.from_regex(r"[A-Za-z_]{1,20}", fullmatch=True)
PLAIN = st.from_regex(r"\w+( \w+)*", fullmatch=True)
VALUES = PLAIN | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.lists(st.integers())

BASIC: dict[str, Any] = {
    "prompt": "a red apple", "negative_prompt": "", "styles": [], "sampler_name": "Euler a", "scheduler": "Automatic",
    "steps": 20, "width": 512, "height": 256, "n_iter": 1, "batch_size": 2, "cfg_scale": 7.0, "seed": -1,
}  # fmt: skip
FOLDED: dict[str, Any] = {
    "variation": False, "subseed": 5, "subseed_strength": 0.5, "seed_resize_from_w": 0, "seed_resize_from_h": 0,
    "refines": False, "refiner_checkpoint": "other", "refiner_switch_at": 0.8,
    "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 2.0, "hr_sampler_name": SAME_SAMPLER,
    "hr_scheduler": SAME_SCHEDULER, "hr_checkpoint_name": SAME_CHECKPOINT, "hr_prompt": "", "denoising_strength": 0.7,
    "restore_faces": False, "tiling": False, "save_images": False, "overrides": [],
    "sd_model_checkpoint": SERVERS_CHOICE, "sd_vae": SERVERS_CHOICE, "CLIP_stop_at_last_layers": 0,
}  # fmt: skip


def made(**changes: Any) -> dict[str, Any]:
    fields = {**BASIC, **FOLDED, **changes}
    return {**shared_fields(fields), **hires_fields(fields)}


def test_sections_that_are_folded_say_nothing() -> None:
    assert made() == {name: value for name, value in BASIC.items() if value not in ("", [])}


def test_a_section_that_is_unfolded_is_told() -> None:
    assert made(variation=True).items() >= {"subseed": 5, "subseed_strength": 0.5}.items()
    assert made(refines=True).items() >= {"refiner_checkpoint": "other", "refiner_switch_at": 0.8}.items()
    assert made(enable_hr=True).items() >= {"enable_hr": True, "hr_upscaler": "Latent", "hr_scale": 2.0}.items()


def test_what_is_the_same_in_the_second_pass_is_left_out() -> None:
    request = made(enable_hr=True, hr_scheduler="Karras")
    assert request["hr_scheduler"] == "Karras"
    assert not {"hr_sampler_name", "hr_checkpoint_name", "hr_prompt"} & set(request)


def test_switches_that_are_off_leave_the_option_its_say() -> None:
    assert "tiling" not in made()
    assert made(tiling=True)["tiling"] is True


def test_the_bar_above_goes_with_the_request_and_lines_win_over_it() -> None:
    assert chosen_options({**FOLDED, "sd_vae": "None"}) == {"sd_vae": "None"}
    request = made(sd_vae="None", CLIP_stop_at_last_layers=2, overrides=["sd_vae: Automatic", "eta_ddim: 0.5"])
    assert request["override_settings"] == {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 2, "eta_ddim": 0.5}


def test_a_request_of_the_page_is_one_that_the_api_knows() -> None:
    assert set(made(variation=True, refines=True, enable_hr=True, overrides=["a: 1"])) <= set(Txt2Img.model_fields)


@given(
    st.fixed_dictionaries(
        {
            "steps": st.integers(1, 150),
            "seed": st.integers(-1, 2**32),
            "tiling": st.booleans(),
            "variation": st.just(True),
            "subseed_strength": st.floats(0.01, 1),
            "refines": st.booleans(),
            "enable_hr": st.booleans(),
            "hr_sampler_name": st.sampled_from([SAME_SAMPLER, "Heun"]),
            "overrides": st.lists(st.sampled_from(["eta_ddim: 0.5", "sd_vae: None"]), unique=True),
        }
    )
)
def test_controls_of_a_request_make_the_same_request_again(changes: dict[str, Any]) -> None:
    request = made(**changes)
    assert made(**{**changes, **controls_of(request)}) == request


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        ({"hr_sampler_name": None, "hr_checkpoint_name": ""}, {"hr_sampler_name": SAME_SAMPLER}),
        ({"refiner_checkpoint": "None"}, {"refines": False}),
        ({"refiner_checkpoint": "other"}, {"refines": True}),
        ({"subseed_strength": 0, "seed_resize_from_w": -1}, {"variation": False, "seed_resize_from_w": 0}),
        ({"seed_resize_from_w": 64, "seed_resize_from_h": 64}, {"variation": True}),
        ({"tiling": None}, {"tiling": False}),
        ({"override_settings": {"a": [1, 2]}}, {"overrides": ["a: [1, 2]"]}),
    ],
)
def test_controls_show_what_a_request_means(request_: dict[str, Any], shown: dict[str, Any]) -> None:
    assert controls_of(request_).items() >= shown.items()


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_options_survive_being_written_as_lines(options: dict[str, Any]) -> None:
    assert read_overrides(write_overrides(options)) == options


def test_lines_that_name_no_option_are_passed_over() -> None:
    assert read_overrides(["", "just words", ": 5", "a: b: c"]) == {"a": "b: c"}


def test_styles_are_worked_in_as_the_api_does_it() -> None:
    assert with_styles("a cat", ["oil of {prompt}", None, " ugly ", ""]) == "oil of a cat, ugly"
    assert with_styles("", ["ugly"]) == "ugly"
