"""What the pictures of a page become in its requests."""

from typing import Any

import pytest

from darkroom.ui.service import Refused
from darkroom.ui.starting import MASK_FIELDS, MODES, SINGLE, pictures_of, start_of, without_masks

CONTROLS = {
    "mask_blur": 3, "inpainting_mask_invert": 1, "inpainting_fill": 2, "inpaint_full_res": 1,
    "inpaint_full_res_padding": 8,
}  # fmt: skip


def picture(**changes: Any) -> dict[str, Any]:
    return {"name": "a.png", "width": 100, "height": 60, "image": "AAAA", "mask": None, **changes}


def refusal(fields: dict[str, Any], pictures: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        start_of(fields, pictures)
    [error] = caught.value.errors
    return error.field, error.text


@pytest.mark.parametrize("mode", ["img2img", "sketch"])
def test_a_whole_picture_comes_without_anything_about_masks(mode: str) -> None:
    assert start_of(CONTROLS, {mode: picture(mask="BBBB")}) == [{"init_images": ["AAAA"]}]


@pytest.mark.parametrize("mode", ["inpaint", "inpaint_sketch"])
def test_what_was_painted_is_the_mask_and_brings_its_fields(mode: str) -> None:
    assert start_of(CONTROLS, {mode: picture(mask="BBBB")}) == [{"init_images": ["AAAA"], "mask": "BBBB", **CONTROLS}]


def test_an_uploaded_mask_is_the_mask() -> None:
    [found] = start_of(CONTROLS, {"inpaint_upload": picture(), "inpaint_upload_mask": picture(image="CCCC")})
    assert (found["init_images"], found["mask"]) == (["AAAA"], "CCCC")


@pytest.mark.parametrize("mode", ["inpaint", "inpaint_sketch", "inpaint_upload"])
def test_a_missing_mask_is_asked_for(mode: str) -> None:
    field, text = refusal(CONTROLS, {mode: picture(), "inpaint_upload_mask": None})
    assert field == "mask"
    assert "made anew" in text


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_picture_is_asked_for(mode: str) -> None:
    assert refusal(CONTROLS, {mode: [] if mode == "batch" else None})[0] == "init_images"


def test_a_page_that_was_never_on_show_has_no_picture() -> None:
    assert refusal({}, {})[0] == "init_images"


def test_pictures_that_are_too_large_are_refused_in_words() -> None:
    assert "64 MB" in refusal({}, {"too_large": True})[1]


def test_each_picture_of_a_batch_is_a_request_of_its_own_with_a_size_of_its_own() -> None:
    batch = [picture(), picture(image="DDDD", width=31, height=41)]
    found = start_of({"resize_by": True, "resize_scale": 1.5}, {"batch": batch})
    assert found == [
        {"init_images": ["AAAA"], "width": 150, "height": 90},
        {"init_images": ["DDDD"], "width": 46, "height": 61},
    ]


def test_a_size_follows_from_the_picture_only_if_that_is_wanted() -> None:
    assert start_of({"resize_by": False, "resize_scale": 2}, {"img2img": picture()}) == [{"init_images": ["AAAA"]}]


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_is_described_whatever_is_painted_on_it(mode: str) -> None:
    shown = {mode: [picture(), picture(image="ZZZZ")] if mode == "batch" else picture()}
    assert start_of({}, without_masks(shown)) == [{"init_images": ["AAAA"]}]


def test_the_fields_of_masks_are_fields_of_the_request() -> None:
    from darkroom.api.models import Img2Img

    assert set(MASK_FIELDS) <= set(Img2Img.model_fields)


def test_a_single_picture_is_chosen_by_the_tab_that_is_open() -> None:
    assert pictures_of({SINGLE: picture()}, (SINGLE, "batch"), field="image") == [picture()]
    assert pictures_of({"batch": [picture(), picture()]}, (SINGLE, "batch"), field="image") == [picture(), picture()]
