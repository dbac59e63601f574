"""A picture as the start, and a mask that keeps what it does not cover."""

import json

import numpy as np
from PIL import Image, ImageDraw

from tests.e2e.serving import Json, Server, apart, as_base64, picture, pixels


def body(photo: Image.Image, **more: object) -> Json:
    return {
        "init_images": [as_base64(photo)],
        "prompt": "a red apple",
        "steps": 6,
        "seed": 3,
        "width": 128,
        "height": 128,
        **more,
    }


def square_mask() -> Image.Image:
    mask = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(mask).rectangle((40, 40, 87, 87), fill=255)
    return mask


def test_low_strength_stays_near_the_picture_and_high_strength_leaves_it(server: Server, photo: Image.Image) -> None:
    near = pixels(server.post("/sdapi/v1/img2img", body(photo, denoising_strength=0.1))["images"][0])
    far = pixels(server.post("/sdapi/v1/img2img", body(photo, denoising_strength=1.0))["images"][0])
    assert apart(near, pixels(photo)) < apart(far, pixels(photo))


def test_a_data_uri_is_as_good_as_plain_base64(server: Server, photo: Image.Image) -> None:
    request = body(photo, denoising_strength=0.4)
    plain = server.post("/sdapi/v1/img2img", request)
    prefixed = server.post(
        "/sdapi/v1/img2img", request | {"init_images": ["data:image/png;base64, " + as_base64(photo)]}
    )
    assert apart(pixels(plain["images"][0]), pixels(prefixed["images"][0])) < 0.5


def test_a_masked_region_is_repainted_and_the_rest_keeps_its_pixels(server: Server, photo: Image.Image) -> None:
    for whole_picture in (True, False):
        request = body(
            photo, mask=as_base64(square_mask()), mask_blur=0, inpainting_fill=1, inpaint_full_res=not whole_picture
        )
        result = pixels(server.post("/sdapi/v1/img2img", request | {"denoising_strength": 0.9})["images"][0])
        change = np.abs(result - pixels(photo)).max(axis=2)
        outside = np.ones((128, 128), dtype=bool)
        outside[38:90, 38:90] = False
        assert change[outside].max() == 0, "a pixel outside the mask changed"
        assert change[~outside].mean() > 2, "nothing changed inside the mask"


def test_an_inverted_mask_keeps_the_inside(server: Server, photo: Image.Image) -> None:
    request = body(photo, mask=as_base64(square_mask()), mask_blur=0, inpaint_full_res=False, inpainting_mask_invert=1)
    result = pixels(server.post("/sdapi/v1/img2img", request)["images"][0])
    assert np.abs(result - pixels(photo))[44:84, 44:84].max() == 0


def test_the_result_has_the_asked_size_and_its_parameters_tell_the_strength(server: Server, photo: Image.Image) -> None:
    answer = server.post("/sdapi/v1/img2img", body(photo, width=64, height=96, resize_mode=1, denoising_strength=0.5))
    assert picture(answer["images"][0]).size == (64, 96)
    assert "Denoising strength: 0.5" in json.loads(answer["info"])["infotexts"][0]
    assert answer["parameters"]["init_images"] is None
