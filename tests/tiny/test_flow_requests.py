"""Stable Diffusion 3 and FLUX.1 over HTTP: requests to a whole server with tiny checkpoints."""

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor

from darkroom.api.app import create_app
from darkroom.engine.local import LocalEngine
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.flow_checkpoints import denoiser_in_file, tiny_flux, tiny_sd3, whole, write

Pixels = NDArray[np.int16]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("flow")
    models = folder / "models" / "Stable-diffusion"
    write(models / "sd3.safetensors", whole(tiny_sd3()))
    write(models / "dev.safetensors", whole(tiny_flux()))
    write(models / "schnell.safetensors", whole(tiny_flux(guided=False)))
    write(models / "bare" / "bare.safetensors", denoiser_in_file(tiny_flux().transformer))
    write_tiny_checkpoint(models, "old")
    write(folder / "models" / "Lora" / "style.safetensors", adapter())
    settings = Settings(data_dir=folder, models_dir=folder / "models", device="cpu", precision="fp32")
    app = create_app(settings, LocalEngine(settings), Options(settings.options_file))
    with TestClient(app) as client:
        yield client


def adapter() -> dict[str, Tensor]:
    """A change of one layer of either family."""
    torch.manual_seed(5)
    sd3, dev = "lora_unet_joint_blocks_0_x_block_attn_qkv", "lora_unet_double_blocks_0_img_attn_qkv"
    return {
        f"{layer}.lora_{way}.weight": torch.randn(*((192, 2) if way == "up" else (2, 64)))
        for layer in (sd3, dev)
        for way in ("up", "down")
    }


def body(checkpoint: str, options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "prompt": "a (red:1.3) cat",
        "negative_prompt": "blurry",
        "seed": 7,
        "steps": 4,
        "width": 64,
        "height": 64,
        "sampler_name": "Euler",
        "override_settings": {"sd_model_checkpoint": checkpoint, "randn_source": "CPU", **(options or {})},
        **changes,
    }


def draw(client: TestClient, route: str, request: dict[str, Any]) -> tuple[Pixels, str]:
    """The first picture, and its generation text."""
    answer = client.post(f"/sdapi/v1/{route}", json=request)
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(b64decode(answer.json()["images"][0])))
    text: str = json.loads(answer.json()["info"])["infotexts"][0]
    return np.asarray(picture).astype(np.int16), text


def encoded(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode()


def txt2img(client: TestClient, *request: Any, **changes: Any) -> tuple[Pixels, str]:
    return draw(client, "txt2img", body(*request, **changes))


@pytest.mark.parametrize("checkpoint", ["sd3", "dev", "schnell"])
def test_a_request_draws_a_picture_that_its_text_draws_again(client: TestClient, checkpoint: str) -> None:
    pixels, text = txt2img(client, checkpoint)
    assert pixels.shape == (64, 64, 3)
    assert pixels.std() > 1
    options = {"sd_model_checkpoint": checkpoint, "randn_source": "CPU"}
    again, _ = draw(client, "txt2img", {"infotext": text, "override_settings": options})
    assert np.abs(pixels - again).max() <= 1


def test_the_text_tells_the_schedule_and_how_strongly_the_prompt_guides(client: TestClient) -> None:
    _, sd3 = txt2img(client, "sd3")
    _, dev = txt2img(client, "dev", distilled_cfg_scale=2.5)
    _, schnell = txt2img(client, "schnell")
    assert "Schedule type: Normal, CFG scale: 7.0, Seed" in sd3
    assert "Schedule type: Simple, CFG scale: 1.0, Distilled CFG Scale: 2.5, Seed" in dev
    assert "Schedule type: Simple, CFG scale: 1.0, Seed" in schnell


def test_distilled_guidance_changes_the_picture_of_dev_alone(client: TestClient) -> None:
    for checkpoint, changes in (("dev", True), ("schnell", False), ("sd3", False)):
        weak, strong = (txt2img(client, checkpoint, distilled_cfg_scale=scale)[0] for scale in (1, 9))
        assert bool((weak != strong).any()) == changes


def test_a_scale_that_is_asked_for_compares_with_the_negative_prompt_too(client: TestClient) -> None:
    left_out, _ = txt2img(client, "dev")
    one, _ = txt2img(client, "dev", cfg_scale=1)
    more, text = txt2img(client, "dev", cfg_scale=4)
    assert (left_out == one).all()
    assert (left_out != more).any()
    assert "CFG scale: 4.0" in text


def test_t5_reads_the_prompt_of_stable_diffusion_3_when_it_is_asked_to(client: TestClient) -> None:
    without, _ = txt2img(client, "sd3")
    with_t5, _ = txt2img(client, "sd3", {"sd3_enable_t5": True})
    assert (without != with_t5).any()


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
def test_img2img_begins_with_the_picture(client: TestClient, checkpoint: str) -> None:
    starts = [np.full((64, 64, 3), level, np.int16) for level in (40, 215)]

    def difference(strength: float) -> float:
        requests = [
            body(checkpoint, init_images=[encoded(start)], denoising_strength=strength, steps=8) for start in starts
        ]
        one, other = (draw(client, "img2img", request)[0] for request in requests)
        return float(np.abs(one - other).mean())

    assert difference(0.05) > 2 * difference(0.95)


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M SDE"])
def test_a_masked_region_keeps_its_pixels(client: TestClient, checkpoint: str, sampler: str) -> None:
    start = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.int16)
    mask = np.zeros((64, 64, 3), np.int16)
    mask[:, 32:] = 255
    request = body(
        checkpoint,
        init_images=[encoded(start)],
        mask=encoded(mask),
        mask_blur=0,
        inpainting_fill=1,
        inpaint_full_res=False,
        sampler_name=sampler,
    )
    painted, _ = draw(client, "img2img", request)
    assert np.abs(painted[:, :32] - start[:, :32]).max() == 0
    assert np.abs(painted[:, 32:] - start[:, 32:]).mean() > 10


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_a_second_pass_draws_a_larger_picture(client: TestClient, checkpoint: str, upscaler: str) -> None:
    pixels, text = txt2img(
        client, checkpoint, enable_hr=True, hr_scale=1.5, hr_upscaler=upscaler, denoising_strength=0.6
    )
    assert pixels.shape == (96, 96, 3)
    assert pixels.std() > 1
    assert "Hires upscale: 1.5" in text


@pytest.mark.parametrize(("first", "second"), [("old", "dev"), ("sd3", "old"), ("sd3", "dev")])
def test_the_second_pass_may_be_another_familys(client: TestClient, first: str, second: str) -> None:
    larger = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.6}
    pixels, _ = txt2img(client, first, hr_checkpoint_name=second, **larger)
    assert pixels.shape == (96, 96, 3)
    own, _ = txt2img(client, first, **larger)
    assert (pixels != own).any()


def test_a_sampler_that_follows_no_flow_is_refused_with_those_that_do(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json=body("sd3", sampler_name="DDIM"))
    assert answer.status_code == 422
    assert "Euler a" in answer.text


def test_a_missing_text_encoder_is_named_and_does_not_stay_missing(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json=body("bare"))
    assert answer.status_code == 404
    assert "clip_l.safetensors" in answer.text


@pytest.mark.parametrize("width", [72, 88])
def test_sides_of_eight_pixels_are_enough(client: TestClient, width: int) -> None:
    pixels, _ = txt2img(client, "dev", width=width)
    assert pixels.shape == (64, width, 3)


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
def test_an_adapter_changes_the_picture_and_goes_without_a_trace(client: TestClient, checkpoint: str) -> None:
    before, _ = txt2img(client, checkpoint)
    changed, _ = txt2img(client, checkpoint, prompt="a (red:1.3) cat <lora:style:1>")
    after, _ = txt2img(client, checkpoint)
    assert (before != changed).any()
    assert (before == after).all()


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M SDE"])
def test_pictures_of_a_batch_are_those_of_their_seeds(client: TestClient, checkpoint: str, sampler: str) -> None:
    request = body(checkpoint, batch_size=2, sampler_name=sampler)
    answer = client.post("/sdapi/v1/txt2img", json=request).json()
    second = np.asarray(Image.open(io.BytesIO(b64decode(answer["images"][-1])))).astype(np.int16)
    alone, _ = txt2img(client, checkpoint, seed=8, sampler_name=sampler)
    # Kernels are chosen by batch size, so the last bit of a pixel may differ.
    assert np.abs(second - alone).max() <= 1


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
def test_soft_inpainting_repaints_what_is_under_the_mask(client: TestClient, checkpoint: str) -> None:
    start = np.full((64, 64, 3), 120, np.int16)
    mask = np.zeros((64, 64, 3), np.int16)
    mask[:, 32:] = 255
    request = body(
        checkpoint,
        init_images=[encoded(start)],
        mask=encoded(mask),
        mask_blur=4,
        inpainting_fill=1,
        inpaint_full_res=False,
        alwayson_scripts={"soft inpainting": {"args": [True]}},
    )
    painted, text = draw(client, "img2img", request)
    assert "Soft inpainting enabled: True" in text
    assert np.abs(painted - start)[:, 48:].mean() > 2


@pytest.mark.parametrize("checkpoint", ["sd3", "dev"])
def test_prompts_of_any_length_and_changing_ones_are_drawn(client: TestClient, checkpoint: str) -> None:
    plain, _ = txt2img(client, checkpoint, {"sd3_enable_t5": True})
    long, _ = txt2img(client, checkpoint, {"sd3_enable_t5": True}, prompt="a red cat, " * 60)
    changing, _ = txt2img(client, checkpoint, {"sd3_enable_t5": True}, prompt="a [red:blue:0.5] cat AND a dog :0.5")
    assert (plain != long).any()
    assert (plain != changing).any()


def test_other_routes_leave_the_scale_to_the_checkpoint_too(client: TestClient) -> None:
    request = {"prompt": "a cat", "model": "dev", "size": "64x64", "response_format": "b64_json", "steps": 2}
    answer = client.post("/v1/images/generations", json=request)
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(b64decode(answer.json()["data"][0]["b64_json"])))
    assert "CFG scale: 1.0, Distilled CFG Scale: 3.5" in picture.info["parameters"]


def test_the_noise_of_a_picture_is_not_looked_for_along_a_flow(client: TestClient) -> None:
    start = encoded(np.full((64, 64, 3), 120, np.int16))
    arguments = ["", True, True, "", "", True, 4, True, 1.0, 0.0, False]
    request = body("sd3", init_images=[start], script_name="img2img alternative test", script_args=arguments)
    answer = client.post("/sdapi/v1/img2img", json=request)
    assert answer.status_code == 422
    assert "not with Stable Diffusion 3" in answer.text
