"""The way back from a generation text to a request: what the API wrote is read into the same request."""

import base64
import dataclasses
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.images.metadata import read_notes
from darkroom.jobs.infotext import read
from darkroom.sampling.names import SAMPLERS, SCHEDULERS
from darkroom.scripts import xyz_plot
from darkroom.scripts.signature import Lists
from darkroom.scripts.signature import read as read_arguments
from darkroom.ui.generation_text import fields_of, text_as_picture

OPTIONS: dict[str, Any] = {
    "CLIP_stop_at_last_layers": 1,
    "randn_source": "GPU",
    "sd_vae": "Automatic",
    "eta_ancestral": 1.0,
    "s_churn": 0.0,
    "face_restoration_model": "CodeFormer",
    "sd_model_checkpoint": "mini [1234567890]",
    "disable_weights_auto_swap": True,
    "always_discard_next_to_last_sigma": False,
}

PLAIN = (
    "a cat, (sitting:1.2)\nNegative prompt: dog\n"
    "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.5, Seed: 5, Size: 64x128"
)


def fields(text: str, page: Any = "txt2img", **options: Any) -> dict[str, Any]:
    return fields_of(read(text), page, {**OPTIONS, **options})


def test_the_plain_entries_become_the_fields_of_their_names() -> None:
    found = fields(PLAIN)
    expected = {
        "prompt": "a cat, (sitting:1.2)", "negative_prompt": "dog", "steps": 20, "sampler_name": "Euler a",
        "scheduler": "Karras", "cfg_scale": 7.5, "seed": 5, "width": 64, "height": 128, "styles": [],
        "subseed": -1, "subseed_strength": 0.0, "refiner_checkpoint": None, "restore_faces": False, "tiling": False,
        "override_settings": {}, "enable_hr": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_a_text_without_entries_fills_in_the_prompts_alone() -> None:
    assert fields("a cat\nNegative prompt: dog") == {"prompt": "a cat", "negative_prompt": "dog"}


@given(sampler=st.sampled_from(SAMPLERS), scheduler=st.sampled_from(SCHEDULERS))
def test_every_sampler_and_schedule_comes_back_as_one_that_draws_the_same(sampler: Any, scheduler: Any) -> None:
    from darkroom.sampling.names import effective_scheduler, resolve

    wanted = resolve(sampler.name, scheduler=scheduler.label)
    told = effective_scheduler(wanted.sampler, wanted.scheduler)
    found = fields(f"x\nSteps: 2, Sampler: {sampler.name}, Schedule type: {told}, Seed: 1, CFG scale: 1")
    again = resolve(found["sampler_name"], scheduler=found["scheduler"])
    assert again.sampler == wanted.sampler
    assert effective_scheduler(again.sampler, again.scheduler) == told


def test_a_variation_and_a_resized_seed_come_back() -> None:
    found = fields(f"{PLAIN}, Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 32x48")
    names = ("subseed", "subseed_strength", "seed_resize_from_w", "seed_resize_from_h")
    assert [found[name] for name in names] == [9, 0.25, 32, 48]


def test_hires_fix_comes_back_with_what_differs_from_the_first_pass() -> None:
    text = (
        f"{PLAIN}, Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 7, Hires upscaler: Latent, "
        "Hires sampler: Euler, Hires prompt: a dog"
    )
    found = fields(text)
    expected = {
        "enable_hr": True, "denoising_strength": 0.4, "hr_scale": 1.5, "hr_second_pass_steps": 7,
        "hr_upscaler": "Latent", "hr_sampler_name": "Euler", "hr_scheduler": None, "hr_checkpoint_name": None,
        "hr_prompt": "a dog", "hr_negative_prompt": "",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_a_picture_of_img2img_does_not_ask_txt2img_for_hires_fix() -> None:
    assert fields(f"{PLAIN}, Denoising strength: 0.4")["enable_hr"] is False


def test_a_size_of_the_second_pass_counts_as_hires_fix() -> None:
    found = fields(f"{PLAIN}, Denoising strength: 0.4, Hires resize: 128x0, Hires upscaler: Latent")
    assert (found["enable_hr"], found["hr_resize_x"], found["hr_resize_y"]) == (True, 128, 0)


def test_options_that_are_otherwise_here_become_overrides_of_their_kind() -> None:
    text = f"{PLAIN}, Clip skip: 2, RNG: CPU, Eta: 0.5, Discard penultimate sigma: True, Sigma churn: 0.0"
    assert fields(text)["override_settings"] == {
        "CLIP_stop_at_last_layers": 2,
        "randn_source": "CPU",
        "eta_ancestral": 0.5,
        "always_discard_next_to_last_sigma": True,
    }


def test_the_checkpoint_is_switched_only_where_the_options_allow_it() -> None:
    text = f"{PLAIN}, Model hash: abcdef1234"
    assert "sd_model_checkpoint" not in fields(text)["override_settings"]
    found = fields(text, disable_weights_auto_swap=False)
    assert found["override_settings"]["sd_model_checkpoint"] == "abcdef1234"


def test_the_restorer_of_faces_goes_with_its_switch() -> None:
    found = fields(f"{PLAIN}, Face restoration: GFPGAN")
    assert found["restore_faces"] is True
    assert found["override_settings"] == {"face_restoration_model": "GFPGAN"}


def test_what_was_done_under_a_mask_comes_back_on_img2img() -> None:
    text = (
        f"{PLAIN}, Denoising strength: 0.6, Mask blur: 6, Mask mode: Inpaint not masked, Masked content: latent noise, "
        "Inpaint area: Only masked, Masked area padding: 16, Soft inpainting enabled: True, "
        "Soft inpainting schedule bias: 1, Soft inpainting preservation strength: 0.5, "
        "Soft inpainting transition contrast boost: 4, Soft inpainting mask influence: 0, "
        "Soft inpainting difference threshold: 0.5, Soft inpainting difference contrast: 2"
    )
    found = fields(text, "img2img")
    expected = {
        "denoising_strength": 0.6, "mask_blur": 6, "inpainting_mask_invert": 1, "inpainting_fill": 2,
        "inpaint_full_res": True, "inpaint_full_res_padding": 16,
        "alwayson_scripts": {"Soft inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}},
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_the_grid_of_a_plot_brings_its_axes() -> None:
    found = fields(f'{PLAIN}, Script: X/Y/Z plot, X Type: Seed, X Values: "1,2", Y Type: Sampler, Y Values: Euler')
    assert found["script_name"] == "X/Y/Z plot"
    assert found["script_args"][:9] == ["Seed", "1,2", None, "Sampler", "Euler", None, "Nothing", "", None]


def test_the_arguments_of_a_plot_are_as_many_as_the_script_takes() -> None:
    arguments = fields(f"{PLAIN}, Script: X/Y/Z plot, X Type: Steps, X Values: 1-2")["script_args"]
    read_arguments(xyz_plot.Arguments, arguments, Lists(), field="script_args")
    assert len(arguments) == len(dataclasses.fields(xyz_plot.Arguments))


def test_a_picture_that_is_no_grid_takes_the_script_away() -> None:
    assert (fields(PLAIN)["script_name"], fields(PLAIN)["script_args"]) == (None, [])


@pytest.mark.parametrize("text", ["", "Steps: 2", "Steps: x, Sampler: y, Seed: z", "a\nSteps: 1, Seed: 1e9, Size: 8x"])
@pytest.mark.parametrize("page", ["txt2img", "img2img"])
def test_a_text_that_means_nothing_does_no_harm(text: str, page: str) -> None:
    assert "prompt" in fields(text, page)


@given(st.text(max_size=200))
def test_a_text_as_a_picture_is_read_back_as_it_was(text: str) -> None:
    cleaned = text.encode("utf-8", "replace").decode().replace("\0", "").replace("\r", "")
    picture = Image.open(io.BytesIO(base64.b64decode(text_as_picture(cleaned))))
    assert read_notes(picture)[0] == cleaned
