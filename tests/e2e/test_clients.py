"""A client that other people wrote for the original works unchanged."""

from urllib.parse import urlsplit

import pytest
from PIL import Image
from webuiapi import WebUIApi

from tests.e2e.serving import Server


@pytest.fixture
def api(server: Server) -> WebUIApi:
    return WebUIApi(host="127.0.0.1", port=urlsplit(server.url).port, sampler="Euler a", steps=3)


def test_webuiapi_draws(api: WebUIApi) -> None:
    result = api.txt2img(prompt="cute squirrel", negative_prompt="ugly", seed=1003, width=64, height=64, cfg_scale=7)
    assert result.image.size == (64, 64)
    assert result.info["seed"] == 1003
    assert result.parameters["prompt"] == "cute squirrel"


def test_webuiapi_redraws_and_inpaints(api: WebUIApi, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size, 255)
    result = api.img2img(
        images=[photo], mask_image=mask, prompt="an apple", seed=5, width=128, height=128, denoising_strength=0.5
    )
    assert result.image.size == photo.size


def test_webuiapi_reads_lists_and_progress(api: WebUIApi) -> None:
    assert "Euler a" in [entry["name"] for entry in api.get_samplers()]
    assert api.util_get_model_names()
    assert api.get_progress()["progress"] == 0
    assert api.util_wait_for_ready() is None


def test_webuiapi_sets_a_model_and_an_option(api: WebUIApi) -> None:
    name = api.util_get_model_names()[0]
    api.util_set_model(name, find_closest=False)
    assert api.util_get_current_model() == name
    api.set_options({"CLIP_stop_at_last_layers": 1})
    assert api.get_options()["CLIP_stop_at_last_layers"] == 1


def test_webuiapi_reads_the_parameters_of_its_picture(api: WebUIApi) -> None:
    result = api.txt2img(prompt="tree", seed=9, width=64, height=64)
    assert api.png_info(result.image).info.startswith("tree\n")
