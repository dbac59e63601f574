"""Enlarging pictures with the network that comes along, against the real server."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageDraw

from tests.e2e.serving import Json, Pixels, Server, as_base64, pixels

SMALL: Json = {"prompt": "a red circle", "steps": 2, "seed": 7, "width": 64, "height": 64}
NETWORK = "Darkroom 2x"


def drawn(side: int) -> Image.Image:
    """A page of rings and bars, drawn large and reduced."""
    page = Image.new("RGB", (side * 4, side * 4), (240, 230, 200))
    pen = ImageDraw.Draw(page)
    for place in range(6):
        x, y = side * (0.4 + 0.6 * (place % 3)), side * (0.5 + 2 * (place // 3))
        colour = (40 * place, 200 - 30 * place, 90)
        pen.ellipse((x, y, x + side * 0.9, y + side * 0.9), outline=colour, width=side // 12)
        pen.line((x, y, x + side * 2, y + side * 1.5), fill=colour[::-1], width=side // 16)
    return page.resize((side, side), Image.Resampling.BOX)


def error(first: Pixels, second: Image.Image) -> float:
    return float(np.mean((first.astype(int) - np.asarray(second)) ** 2))


def test_the_network_enlarges_better_than_lanczos(server: Server) -> None:
    large = drawn(256)
    body = {"image": as_base64(large.resize((128, 128), Image.Resampling.BICUBIC)), "upscaling_resize": 2}
    errors = {
        name: error(pixels(server.post("/sdapi/v1/extra-single-image", {**body, "upscaler_1": name})["image"]), large)
        for name in (NETWORK, "Lanczos")
    }
    assert errors[NETWORK] < 0.5 * errors["Lanczos"]


def test_a_second_pass_and_extras_run_beside_each_other(server: Server) -> None:
    hires = {**SMALL, "enable_hr": True, "hr_upscaler": NETWORK, "denoising_strength": 0.4, "restore_faces": True}
    extras = {"image": as_base64(drawn(200)), "upscaler_1": NETWORK, "upscaling_resize": 3}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.post, "/sdapi/v1/txt2img", hires)
        second = pool.submit(server.post, "/sdapi/v1/extra-single-image", extras)
    assert pixels(first.result()["images"][0]).shape == (128, 128, 3)
    assert pixels(second.result()["image"]).shape == (600, 600, 3)
    document = json.loads(first.result()["info"])
    assert "Hires upscaler: Darkroom 2x" in document["infotexts"][0]
    assert document["restore_faces"] is True


def test_a_network_that_is_missing_is_named_with_its_place(server: Server) -> None:
    body = {"image": as_base64(drawn(64)), "upscaler_1": "R-ESRGAN 4x+"}
    answer = server.client.post("/sdapi/v1/extra-single-image", json=body)
    assert answer.status_code == 404
    assert "RealESRGAN_x4plus.pth" in answer.json()["detail"]
