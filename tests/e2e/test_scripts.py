"""Scripts, extras and lists against the real server."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.serving import Json, Server, as_base64, picture, pixels, serving

SMALL: Json = {"prompt": "a red circle", "steps": 2, "seed": 7, "width": 64, "height": 64}

LISTS = (
    "samplers", "schedulers", "upscalers", "latent-upscale-modes", "sd-models", "sd-vae", "hypernetworks",
    "face-restorers", "realesrgan-models", "prompt-styles", "embeddings", "loras", "scripts", "script-info",
    "extensions", "cmd-flags", "memory", "options", "progress",
)  # fmt: skip


def test_every_list_of_the_original_is_there(server: Server) -> None:
    for name in LISTS:
        assert isinstance(server.get(f"/sdapi/v1/{name}"), list | dict), name


def test_a_plot_has_the_pictures_that_single_requests_have(server: Server) -> None:
    arguments = [4, "2,3", "", 0, "", "", 0, "", "", False, True, False, False, False, False, False, 0, False]
    plot = server.post("/sdapi/v1/txt2img", {**SMALL, "script_name": "x/y/z plot", "script_args": arguments})
    assert len(plot["images"]) == 3
    grid = pixels(plot["images"][0])
    assert grid.shape == (64, 128, 3)
    for place, steps in enumerate((2, 3)):
        alone = pixels(server.post("/sdapi/v1/txt2img", {**SMALL, "steps": steps})["images"][0])
        assert np.abs(alone - pixels(plot["images"][1 + place])).max() <= 1
        assert np.abs(alone - grid[:, 64 * place : 64 * (place + 1)]).max() <= 1
    texts = json.loads(plot["info"])["infotexts"]
    assert "Script: X/Y/Z plot, X Type: Steps" in texts[0]
    assert [text.split("Steps: ")[1][0] for text in texts[1:]] == ["2", "3"]


def test_an_interrupt_ends_a_script_after_the_picture_in_work(server: Server, photo: Image.Image) -> None:
    body = {**SMALL, "steps": 150, "init_images": [as_base64(photo)], "denoising_strength": 1.0}
    script = {"script_name": "Loopback", "script_args": [16, 0.9, "Linear", "None"]}
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(server.post, "/sdapi/v1/img2img", {**body, **script})
        progress = server.wait_until_sampling()
        assert progress["state"]["job_count"] == 16
        server.post("/sdapi/v1/interrupt", {})
        answer = work.result(60)
    assert len(answer["images"]) < 16
    server.wait_until_idle()


def test_outpainting_keeps_the_middle_of_the_picture(server: Server, photo: Image.Image) -> None:
    body = {**SMALL, "width": 128, "height": 128, "init_images": [as_base64(photo)], "denoising_strength": 0.8}
    for name, arguments in (
        ("Poor man's outpainting", [64, 4, 1, ["left", "right"]]),
        ("Outpainting mk2", ["", 64, 4, ["left", "right"], 1.0, 0.05]),
    ):
        answer = server.post("/sdapi/v1/img2img", {**body, "script_name": name, "script_args": arguments})
        grown = pixels(answer["images"][0])
        assert grown.shape == (128, 256, 3)
        middle, known = grown[:, 64 + 30 : 192 - 30], pixels(photo)[:, 30:-30]
        assert np.abs(middle - known).mean() < 3


def test_extras_enlarge_a_generated_picture_and_keep_its_text(server: Server) -> None:
    made = server.post("/sdapi/v1/txt2img", SMALL)["images"][0]
    answer = server.post("/sdapi/v1/extra-single-image", {"image": made, "upscaler_1": "Lanczos"})
    enlarged = picture(answer["image"])
    assert enlarged.size == (128, 128)
    assert enlarged.info["parameters"] == picture(made).info["parameters"]


def test_models_are_unloaded_and_come_back_by_themselves(server: Server) -> None:
    before = pixels(server.post("/sdapi/v1/txt2img", SMALL)["images"][0])
    server.post("/sdapi/v1/unload-checkpoint", "")
    after = pixels(server.post("/sdapi/v1/txt2img", SMALL)["images"][0])
    assert (before == after).all()
    server.post("/sdapi/v1/reload-checkpoint", "")


def test_a_server_stops_when_a_client_may_ask_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--api-server-stop") as server:
        answer = server.client.post("/sdapi/v1/server-stop")
        assert (answer.status_code, answer.text) == (200, "Stopping.")
        assert "content-type" not in answer.headers
        assert server.process.wait(20) in {0, 130}  # 130: ended as by Ctrl-C


def test_a_picture_is_drawn_again_from_the_noise_it_would_have_come_from(server: Server) -> None:
    made = server.post("/sdapi/v1/txt2img", {**SMALL, "steps": 20, "cfg_scale": 1, "sampler_name": "Euler"})
    body = {**SMALL, "init_images": made["images"], "cfg_scale": 1}
    arguments = ["", True, True, SMALL["prompt"], "", True, 40, True, 1.0, 0.0, False]
    again = server.post(
        "/sdapi/v1/img2img", body | {"script_name": "img2img alternative test", "script_args": arguments}
    )
    first, second = pixels(made["images"][0]), pixels(again["images"][0])
    other = pixels(server.post("/sdapi/v1/txt2img", {**SMALL, "steps": 20, "cfg_scale": 1, "seed": 8})["images"][0])
    assert np.abs(first - second).mean() < np.abs(first - other).mean() / 2
    assert "Decode steps: 40" in json.loads(again["info"])["infotexts"][0]


def test_a_dropped_connection_ends_a_script(server: Server, photo: Image.Image) -> None:
    body = {**SMALL, "steps": 150, "init_images": [as_base64(photo)], "denoising_strength": 1.0}
    script = {"script_name": "Loopback", "script_args": [32, 0.9, "Linear", "None"]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/sdapi/v1/img2img", json=body | script, timeout=1.5)
    server.wait_until_idle(10)
