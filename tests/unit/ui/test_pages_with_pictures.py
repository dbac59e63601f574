"""img2img and Extras: what their controls become in requests. Browsers and servers are not needed for that."""

import json
from typing import Any

import pytest

from darkroom.api.models import ExtrasSingle, Img2Img
from darkroom.ui.pages import extras, img2img
from darkroom.ui.parts.gathering import gathered, gathering, script_fields
from darkroom.ui.service import Refused

PICTURE = {"name": "a.png", "width": 64, "height": 32, "image": "AAAA", "mask": "BBBB"}

CONTROLS: dict[str, Any] = {
    "prompt": "a cat", "negative_prompt": "", "styles": [], "sampler_name": "Euler a", "scheduler": "Automatic",
    "steps": 5, "width": 128, "height": 64, "n_iter": 1, "batch_size": 1, "cfg_scale": 7.0, "seed": 3,
    "denoising_strength": 0.6, "resize_mode": 2, "resize_by": False, "resize_scale": 1.0, "mask_blur": 4,
    "inpainting_mask_invert": 0, "inpainting_fill": 1, "inpaint_full_res": 0, "inpaint_full_res_padding": 32,
}  # fmt: skip

ENLARGING: dict[str, Any] = {
    "resize_mode": 0, "upscaling_resize": 4.0, "upscaling_resize_w": 512, "upscaling_resize_h": 512,
    "upscaling_crop": True, "upscaler_1": "Lanczos", "upscaler_2": "None", "extras_upscaler_2_visibility": 0.5,
    "gfpgan_visibility": 0.0, "codeformer_visibility": 0.0, "codeformer_weight": 0.3,
}  # fmt: skip


def with_gathered(controls: dict[str, Any], **found: Any) -> dict[str, Any]:
    return {**controls, "gathered": json.dumps(found)}


def asked(pictures: dict[str, Any], **found: Any) -> list[dict[str, Any]]:
    return img2img.requests_of(with_gathered(CONTROLS, pictures=pictures, **found))


def enlarged(pictures: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    return extras.requests_of(with_gathered({**ENLARGING, **changes}, pictures=pictures))


def test_a_whole_picture_is_asked_for_without_words_about_masks() -> None:
    [found] = asked({"img2img": PICTURE})
    assert found["init_images"] == ["AAAA"]
    assert (found["denoising_strength"], found["resize_mode"], found["width"]) == (0.6, 2, 128)
    assert not any(name.startswith(("mask", "inpaint")) for name in found)


def test_inpainting_says_what_the_controls_say_of_the_mask() -> None:
    [found] = asked({"inpaint": PICTURE})
    masked = {name: value for name, value in found.items() if name.startswith(("mask", "inpaint"))}
    assert masked == {
        "mask": "BBBB", "mask_blur": 4, "inpainting_mask_invert": 0, "inpainting_fill": 1, "inpaint_full_res": 0,
        "inpaint_full_res_padding": 32,
    }  # fmt: skip


def test_every_request_of_the_page_is_one_that_the_api_knows_in_full() -> None:
    for request in asked({"batch": [PICTURE, PICTURE]}) + asked({"inpaint_sketch": PICTURE}):
        assert set(request) <= set(Img2Img.model_fields)
        assert Img2Img.model_validate(request).leniencies == ()


def test_scripts_go_into_the_request_as_the_browser_gathered_them() -> None:
    scripts = {"script_name": "Loopback", "script_args": [4, 0.5, "Linear", "None"], "alwayson_scripts": {}}
    [found] = asked({"img2img": PICTURE}, scripts=scripts)
    assert (found["script_name"], found["script_args"]) == ("Loopback", [4, 0.5, "Linear", "None"])
    assert "alwayson_scripts" not in found


@pytest.mark.parametrize("text", ["", None, "{}", "[]", "null"])
def test_a_page_whose_elements_were_never_on_show_has_gathered_nothing(text: str | None) -> None:
    assert gathered({"gathered": text}) == {}
    assert script_fields({"gathered": text}) == {}


def test_the_script_of_an_event_knows_where_its_input_stands() -> None:
    assert gathering("img2img", ["prompt", "gathered", "seed"]).endswith('.withGathered("img2img", 1, 3, values)')


def test_a_picture_is_enlarged_by_a_factor_without_words_about_a_size() -> None:
    [found] = enlarged({"single": PICTURE})
    assert found == {
        "image": "AAAA", "resize_mode": 0, "upscaling_resize": 4.0, "upscaler_1": "Lanczos", "upscaler_2": "None",
        "gfpgan_visibility": 0.0, "codeformer_visibility": 0.0,
    }  # fmt: skip


def test_a_picture_is_enlarged_to_a_size_without_words_about_a_factor() -> None:
    [found] = enlarged({"single": PICTURE}, resize_mode=1)
    assert "upscaling_resize" not in found
    assert [found[name] for name in ("upscaling_resize_w", "upscaling_resize_h", "upscaling_crop")] == [512, 512, True]


def test_a_second_upscaler_and_codeformer_bring_what_belongs_to_them() -> None:
    [found] = enlarged({"single": PICTURE}, upscaler_2="Nearest", codeformer_visibility=1.0)
    assert (found["extras_upscaler_2_visibility"], found["codeformer_weight"]) == (0.5, 0.3)


def test_every_picture_of_a_batch_is_enlarged_by_a_job_of_its_own() -> None:
    found = enlarged({"batch": [PICTURE, {**PICTURE, "image": "CCCC"}]})
    assert [request["image"] for request in found] == ["AAAA", "CCCC"]
    assert all(ExtrasSingle.model_validate(request).leniencies == () for request in found)


def test_extras_without_a_picture_ask_for_one() -> None:
    with pytest.raises(Refused) as caught:
        enlarged({"single": None})
    assert [error.field for error in caught.value.errors] == ["image"]
