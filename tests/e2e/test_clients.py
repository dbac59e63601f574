"""The client webuiapi, which other people wrote for the original, works unchanged."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from webuiapi import HiResUpscaler, Upscaler, WebUIApi

from tests.e2e.serving import Server, apart, pixels, serving


@pytest.fixture
def api(server: Server) -> WebUIApi:
    return WebUIApi(host="127.0.0.1", port=urlsplit(server.url).port, sampler="Euler a", steps=3)


def test_webuiapi_draws(api: WebUIApi) -> None:
    result = api.txt2img(prompt="cute squirrel", negative_prompt="ugly", seed=1003, width=64, height=64, cfg_scale=7)
    assert result.image.size == (64, 64)
    assert result.info["seed"] == 1003
    assert result.parameters["prompt"] == "cute squirrel"


def test_webuiapi_draws_several_with_variations(api: WebUIApi) -> None:
    result = api.txt2img(
        prompt="a cat", seed=11, subseed=12, subseed_strength=0.3, batch_size=2, n_iter=2, width=64, height=64
    )
    assert len(result.images) == 4
    assert result.info["all_seeds"] == [11] * 4
    assert result.info["all_subseeds"] == [12, 13, 14, 15]


@pytest.mark.parametrize("upscaler", [HiResUpscaler.Latent, HiResUpscaler.Lanczos])
def test_webuiapi_fixes_hires(api: WebUIApi, upscaler: HiResUpscaler) -> None:
    result = api.txt2img(
        prompt="a house", seed=3, width=128, height=128, enable_hr=True, hr_scale=1.5, hr_upscaler=upscaler,
        hr_second_pass_steps=2, denoising_strength=0.5,
    )  # fmt: skip
    assert result.image.size == (192, 192)
    assert f"Hires upscaler: {upscaler.value}" in result.info["infotexts"][0]


def test_webuiapi_redraws_and_inpaints(api: WebUIApi, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size, 255)
    result = api.img2img(
        images=[photo], mask_image=mask, prompt="an apple", seed=5, width=128, height=128, denoising_strength=0.5
    )
    assert result.image.size == photo.size


def test_webuiapi_inpaints_a_part_and_keeps_the_rest(api: WebUIApi, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size)
    mask.paste(255, (40, 40, 88, 88))
    result = api.img2img(
        images=[photo], mask_image=mask, prompt="a red ball", seed=5, width=128, height=128, inpainting_fill=1,
        denoising_strength=0.6, inpaint_full_res=True, inpaint_full_res_padding=16,
    )  # fmt: skip
    assert result.image.size == photo.size
    corner = (0, 0, 16, 16)
    assert result.image.convert("RGB").crop(corner).tobytes() == photo.crop(corner).tobytes()


def test_webuiapi_runs_scripts(api: WebUIApi, photo: Image.Image) -> None:
    lines = [False, False, "start", "a dog\na cat"]
    drawn = api.txt2img(script_name="Prompts from file or textbox", script_args=lines, seed=3, width=64, height=64)
    assert len(drawn.images) == 2
    assert [text.splitlines()[0] for text in drawn.info["infotexts"]] == ["a dog", "a cat"]
    upscale = ["", 16, "Lanczos", 1.5]
    larger = api.img2img(
        images=[photo], script_name="SD upscale", script_args=upscale, width=128, height=128, denoising_strength=0.3
    )
    assert larger.image.size == (192, 192)


def test_webuiapi_enlarges_finished_pictures(api: WebUIApi, photo: Image.Image) -> None:
    one = api.extra_single_image(image=photo, upscaler_1=Upscaler.Lanczos, upscaling_resize=1.5)
    assert one.image.size == (192, 192)
    several = api.extra_batch_images(
        images=[photo, photo], upscaler_1=Upscaler.Nearest, upscaler_2=Upscaler.Lanczos, upscaling_resize=2,
        extras_upscaler_2_visibility=0.5,
    )  # fmt: skip
    assert [image.size for image in several.images] == [(256, 256)] * 2
    sized = api.extra_single_image(
        image=photo, resize_mode=1, upscaler_1=Upscaler.Nearest, upscaling_resize_w=100, upscaling_resize_h=60
    )
    assert sized.image.size == (100, 60)


def test_webuiapi_draws_two_pictures_at_once(api: WebUIApi, photo: Image.Image) -> None:
    async def draw() -> tuple[Any, Any, Any]:
        small: dict[str, Any] = {"width": 128, "height": 128, "use_async": True}
        return await asyncio.gather(
            api.txt2img(prompt="a squirrel", seed=7, **small),
            api.img2img(images=[photo], prompt="an apple", seed=8, denoising_strength=0.5, **small),
            api.extra_single_image(image=photo, upscaler_1=Upscaler.Lanczos, use_async=True),
        )

    drawn, redrawn, enlarged = asyncio.run(draw())
    assert [drawn.info["seed"], redrawn.info["seed"]] == [7, 8]
    assert [drawn.image.size, redrawn.image.size, enlarged.image.size] == [(128, 128), (128, 128), (256, 256)]
    alone = api.txt2img(prompt="a squirrel", seed=7, width=128, height=128)
    assert apart(pixels(alone.image), pixels(drawn.image)) < 1


LISTS = (
    "get_samplers", "get_schedulers", "get_upscalers", "get_latent_upscale_modes", "get_sd_models", "get_sd_vae",
    "get_loras", "get_hypernetworks", "get_face_restorers", "get_realesrgan_models", "get_prompt_styles",
)  # fmt: skip


def test_webuiapi_reads_every_list(api: WebUIApi) -> None:
    lists = {name: getattr(api, name)() for name in LISTS}
    assert [name for name, found in lists.items() if not isinstance(found, list)] == []
    assert set(api.get_embeddings()) == {"loaded", "skipped"}
    assert {"txt2img", "img2img"} == set(api.get_scripts())
    assert {"ram", "cuda"} == set(api.get_memory())
    assert "api_auth" in api.get_cmd_flags()
    assert api.refresh_checkpoints() is None
    assert api.skip() is None


def test_webuiapi_reads_lists_and_progress(api: WebUIApi) -> None:
    assert "Euler a" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    assert api.util_get_model_names()
    assert api.get_progress()["progress"] == 0
    assert api.util_wait_for_ready() is None


def test_webuiapi_watches_and_interrupts_a_long_job(api: WebUIApi, server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(api.txt2img, prompt="a boat", steps=120, width=128, height=128)
        server.wait_until_sampling()
        progress = api.get_progress()
        assert 0 < progress["progress"] <= 1
        assert progress["state"]["job_count"] == 1
        assert api.interrupt() == {}
        assert job.result(30).image.size == (128, 128)


def test_webuiapi_sets_a_model_and_an_option(api: WebUIApi) -> None:
    name = api.util_get_model_names()[0]
    api.util_set_model(name, find_closest=False)
    assert api.util_get_current_model() == name
    api.set_options({"CLIP_stop_at_last_layers": 1})
    assert api.get_options()["CLIP_stop_at_last_layers"] == 1


def test_webuiapi_reads_the_parameters_of_its_picture(api: WebUIApi) -> None:
    result = api.txt2img(prompt="tree", seed=9, width=64, height=64)
    assert api.png_info(result.image).info.startswith("tree\n")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, repository_of_module: Path) -> Iterator[Server]:
    """A server with two checkpoints, a style and a password."""
    folder = tmp_path_factory.mktemp("furnished")
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nInk,{prompt} in ink,colour\n", encoding="utf-8")
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    for name in ("first", "second"):
        for suffix in (".safetensors", ".yaml"):
            source = repository_of_module / f"darkroom/mini/darkroom-mini{suffix}"
            (checkpoints / f"{name}{suffix}").symlink_to(source)
    flags = ("--ckpt-dir", str(checkpoints), "--api-auth", "me:secret")
    with serving(folder, *flags, auth=("me", "secret")) as server:
        yield server


@pytest.fixture(scope="module")
def repository_of_module() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture
def known(furnished: Server) -> Callable[..., WebUIApi]:
    port = urlsplit(furnished.url).port
    return lambda **who: WebUIApi(host="127.0.0.1", port=port, sampler="Euler", steps=2, **who)


def test_webuiapi_switches_between_models(known: Callable[..., WebUIApi]) -> None:
    api = known(username="me", password="secret")
    names = api.util_get_model_names()
    assert len(names) >= 2
    for wanted in ("first", "second"):
        (title,) = [name for name in names if name.startswith(wanted)]
        api.util_set_model(title, find_closest=False)
        assert api.util_get_current_model().startswith(wanted)
        result = api.txt2img(prompt="a cup", seed=3, width=64, height=64)
        assert result.info["sd_model_name"] == wanted
    override = {"sd_model_checkpoint": next(name for name in names if name.startswith("first"))}
    assert api.txt2img(prompt="a cup", width=64, height=64, override_settings=override).info["sd_model_name"] == "first"
    assert api.util_get_current_model().startswith("second")


def test_webuiapi_uses_a_style(known: Callable[..., WebUIApi]) -> None:
    api = known(username="me", password="secret")
    assert {"name": "Ink", "prompt": "{prompt} in ink", "negative_prompt": "colour"} in api.get_prompt_styles()
    result = api.txt2img(prompt="a pear", styles=["Ink"], seed=3, width=64, height=64)
    assert result.info["prompt"] == "a pear in ink"
    assert result.info["negative_prompt"] == "colour"


def test_webuiapi_without_a_password_is_refused(known: Callable[..., WebUIApi]) -> None:
    with pytest.raises(RuntimeError, match="401"):
        known().txt2img(prompt="a pear", width=64, height=64)


def test_a_picture_travels_as_bare_base64(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", {"prompt": "a pear", "steps": 2, "width": 64, "height": 64})
    assert base64.b64decode(answer["images"][0].split(",", 1)[0], validate=True).startswith(b"\x89PNG")
