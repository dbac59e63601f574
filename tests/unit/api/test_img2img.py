import hashlib
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.jobs.spec import Traits
from tests.unit.api.conftest import Serve, box_mask, from_base64, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine, colour

ROUTE = "/sdapi/v1/img2img"


def post(client: TestClient, picture: Image.Image | None = None, **fields: Any) -> dict[str, Any]:
    start = {"init_images": [to_base64(picture)]} if picture else {}
    answer = client.post(ROUTE, json={"width": 64, "height": 64, "seed": 5, **start, **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def pixels(body: dict[str, Any], index: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(from_base64(body["images"][index]))


def test_parameters_have_57_keys_and_keep_the_pictures_to_themselves(client: TestClient) -> None:
    echo = post(client, noise(64, 64), mask=to_base64(box_mask(64, 64, (0, 0, 9, 9))))["parameters"]
    assert len(echo) == 57
    assert echo["init_images"] is None
    assert echo["mask"] is None
    assert echo["denoising_strength"] == 0.75


def test_parameters_repeat_the_pictures_on_request(client: TestClient) -> None:
    picture = to_base64(noise(64, 64))
    echo = post(client, init_images=[picture], include_init_images=True)["parameters"]
    assert echo["init_images"] == [picture]


def test_the_start_has_the_jobs_size(client: TestClient, engine: FakeEngine) -> None:
    post(client, noise(100, 40), width=64, height=72)
    init = engine.specs[0].init
    assert init is not None
    assert init.pictures[0].shape == (72, 64, 3)
    assert init.latent_mask is None
    assert engine.specs[0].kind == "img2img"


def test_a_picture_of_the_right_size_reaches_the_engine_untouched(client: TestClient, engine: FakeEngine) -> None:
    picture = noise(64, 64)
    post(client, picture)
    init = engine.specs[0].init
    assert init is not None
    assert np.array_equal(init.pictures[0], np.asarray(picture))


def test_the_generation_text_has_the_denoising_strength(client: TestClient) -> None:
    document = json.loads(post(client, noise(64, 64), denoising_strength=0.5)["info"])
    assert document["denoising_strength"] == 0.5
    assert document["extra_generation_params"] == {"Denoising strength": 0.5}
    assert "Model: small-a, Denoising strength: 0.5, Version" in document["infotexts"][0]


@pytest.mark.parametrize(
    "head", ["data:image/png;base64,", "data:image/jpeg;base64, ", "data:image/png;charset=x;base64,"]
)
def test_data_uris_are_read_whatever_their_head_says(client: TestClient, engine: FakeEngine, head: str) -> None:
    picture = noise(64, 64)
    text = head + "\n".join(textwrap.wrap(to_base64(picture), 76))
    post(client, init_images=[text])
    init = engine.specs[0].init
    assert init is not None
    assert np.array_equal(init.pictures[0], np.asarray(picture))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_are_read_too(client: TestClient, file_format: str) -> None:
    post(client, init_images=[to_base64(noise(64, 64), file_format)])


def test_several_start_pictures_lower_the_batch_size_but_not_the_plan(client: TestClient, engine: FakeEngine) -> None:
    start = [to_base64(noise(64, 64, seed)) for seed in (1, 2)]
    body = post(client, init_images=start, batch_size=3, n_iter=2)
    document = json.loads(body["info"])
    assert len(body["images"]) == 4
    assert document["batch_size"] == 2
    assert document["all_seeds"] == [5, 6, 7, 8, 9, 10]
    assert engine.specs[0].seeds == (5, 6, 7, 8)


def test_a_masked_region_is_all_that_changes(client: TestClient) -> None:
    picture = noise(64, 64)
    mask = box_mask(64, 64, (16, 24, 40, 48))
    result = pixels(post(client, picture, mask=to_base64(mask), mask_blur=0, inpaint_full_res=False))
    inside = np.asarray(mask) > 0
    assert np.array_equal(result[~inside], np.asarray(picture)[~inside])
    assert (result[inside] == colour(5)).all()


def test_only_masked_returns_a_picture_of_the_start_pictures_size(client: TestClient, engine: FakeEngine) -> None:
    picture = noise(200, 120)
    mask = box_mask(200, 120, (50, 30, 70, 50))
    body = post(client, picture, mask=to_base64(mask), mask_blur=0, inpaint_full_res_padding=8)
    result = pixels(body)
    inside = np.asarray(mask) > 0
    assert result.shape == (120, 200, 3)
    assert np.array_equal(result[~inside], np.asarray(picture)[~inside])
    assert (result[inside] == colour(5)).all()
    document = json.loads(body["info"])
    assert (document["width"], document["height"]) == (64, 64)
    assert document["extra_generation_params"] == {
        "Denoising strength": 0.75,
        "Inpaint area": "Only masked",
        "Masked area padding": 8,
        "Masked content": "fill",
    }
    init = engine.specs[0].init
    assert init is not None
    assert init.pictures[0].shape == (64, 64, 3)
    assert init.latent_mask is not None
    assert init.latent_mask.shape == (8, 8)


def test_a_blurred_mask_changes_nothing_far_from_it(client: TestClient) -> None:
    picture = noise(128, 128)
    mask = box_mask(128, 128, (50, 50, 70, 70))
    result = pixels(
        post(client, picture, mask=to_base64(mask), mask_blur=4, inpaint_full_res=False, width=128, height=128)
    )
    far = np.ones((128, 128), dtype=bool)
    far[40:80, 40:80] = False
    assert np.array_equal(result[far], np.asarray(picture)[far])


def test_an_inverted_mask_keeps_its_inside(client: TestClient) -> None:
    picture = noise(64, 64)
    mask = box_mask(64, 64, (16, 16, 32, 32))
    body = post(client, picture, mask=to_base64(mask), mask_blur=0, inpainting_mask_invert=True, inpaint_full_res=False)
    inside = np.asarray(mask) > 0
    assert np.array_equal(pixels(body)[inside], np.asarray(picture)[inside])
    assert "Mask mode: Inpaint not masked" in json.loads(body["info"])["infotexts"][0]


def test_a_mask_with_transparency_is_its_alpha_channel(client: TestClient, engine: FakeEngine) -> None:
    mask = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 32, 64))
    post(client, noise(64, 64), mask=to_base64(mask), mask_blur=0, inpaint_full_res=False)
    init = engine.specs[0].init
    assert init is not None
    assert init.latent_mask is not None
    assert init.latent_mask[:, :4].all()
    assert not init.latent_mask[:, 4:].any()


def test_a_blank_mask_makes_it_a_plain_img2img(client: TestClient, engine: FakeEngine) -> None:
    post(client, noise(64, 64), mask=to_base64(Image.new("L", (64, 64))))
    init = engine.specs[0].init
    assert init is not None
    assert init.latent_mask is None


def test_transparent_pixels_take_the_background_colour(client: TestClient, engine: FakeEngine) -> None:
    post(client, Image.new("RGBA", (64, 64), (9, 9, 9, 0)), override_settings={"img2img_background_color": "#102030"})
    init = engine.specs[0].init
    assert init is not None
    assert (init.pictures[0] == (0x10, 0x20, 0x30)).all()


@pytest.mark.parametrize(
    ("number", "name"), [(0, "fill"), (1, "original"), (2, "latent noise"), (3, "latent nothing"), (9, "fill")]
)
def test_inpainting_fill_names_what_lies_under_the_mask(
    client: TestClient, engine: FakeEngine, number: int, name: str
) -> None:
    post(client, noise(64, 64), mask=to_base64(box_mask(64, 64, (8, 8, 40, 40))), inpainting_fill=number)
    init = engine.specs[0].init
    assert init is not None
    assert init.fill == name


def test_options_of_img2img_reach_the_job(client: TestClient, engine: FakeEngine) -> None:
    options = {"img2img_fix_steps": True, "img2img_extra_noise": 0.2}
    text = json.loads(post(client, noise(64, 64), override_settings=options)["info"])["infotexts"][0]
    init = engine.specs[0].init
    assert init is not None
    assert (init.fix_steps, init.extra_noise, init.noise_multiplier) == (True, 0.2, 1.0)
    assert "Extra noise: 0.2" in text


def test_the_noise_multiplier_is_the_requests_or_the_servers_but_never_an_overrides(
    client: TestClient, engine: FakeEngine
) -> None:
    picture = to_base64(noise(64, 64))
    override = {"init_images": [picture], "override_settings": {"initial_noise_multiplier": 1.2}}
    answer = client.post(ROUTE, json=override)
    assert answer.headers["X-Darkroom-Ignored"] == "override_settings.initial_noise_multiplier"
    assert "Noise multiplier: 0.8" in post(client, noise(64, 64), initial_noise_multiplier=0.8)["info"]
    client.post("/sdapi/v1/options", json={"initial_noise_multiplier": 1.1})
    post(client, noise(64, 64))
    assert [spec.init and spec.init.noise_multiplier for spec in engine.specs] == [1.0, 0.8, 1.1]


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({}, 404, "Init image not found"),
        ({"init_images": None}, 404, "Init image not found"),
        ({"init_images": []}, 422, "init_images"),
        ({"init_images": [None]}, 422, "init_images[0]"),
        ({"init_images": [5]}, 422, "init_images[0]"),
        ({"init_images": ["notanimage"]}, 422, "init_images[0]"),
        ({"init_images": [""]}, 422, "init_images[0]"),
        ({"init_images": ["http://127.0.0.1/a.png"]}, 422, "init_images[0]"),
        ({"init_images": ["HTTPS://example.com/a.png"]}, 422, "init_images[0]"),
        ({"init_images": "abc"}, 422, "init_images"),
        ({"init_images": ["A", "A"]}, 422, "init_images"),
        ({"denoising_strength": -0.5, "init_images": ["x"]}, 422, "denoising_strength"),
        ({"denoising_strength": None}, 422, "denoising_strength"),
    ],
)
def test_a_bad_start_is_refused_by_name(client: TestClient, fields: dict[str, Any], status: int, named: str) -> None:
    answer = client.post(ROUTE, json=fields)
    assert answer.status_code == status
    assert named in answer.text
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("fill", [0, 1, 2])
def test_a_latent_stretch_hands_the_picture_over_as_it_is(client: TestClient, engine: FakeEngine, fill: int) -> None:
    picture, mask = noise(96, 48), box_mask(96, 48, (8, 8, 40, 40))
    post(client, picture, resize_mode=3)
    post(client, picture, resize_mode=3, mask=to_base64(mask), inpaint_full_res=False, inpainting_fill=fill)
    for spec in engine.specs:
        assert spec.init is not None
        assert spec.init.pictures[0].shape == (48, 96, 3)
    assert engine.specs[1].init is not None
    assert engine.specs[1].init.latent_mask is not None
    assert engine.specs[1].init.latent_mask.shape == (8, 8)


@pytest.mark.parametrize("size", [(4, 64), (2100, 2100)])
def test_a_latent_stretch_of_a_picture_that_cannot_be_encoded_is_refused(
    client: TestClient, size: tuple[int, int]
) -> None:
    picture = to_base64(Image.new("L", size))
    answer = client.post(ROUTE, json={"init_images": [picture], "resize_mode": 3})
    assert answer.status_code == 422
    assert answer.json()["code"] == "limit_exceeded"


@pytest.mark.parametrize("mask", ["", "notanimage"])
def test_a_bad_mask_is_refused_by_name(client: TestClient, mask: str) -> None:
    answer = client.post(ROUTE, json={"init_images": [to_base64(noise(8, 8))], "mask": mask})
    assert answer.status_code == 422
    assert "mask" in answer.json()["detail"]


def test_an_absurd_blur_is_refused(client: TestClient) -> None:
    picture = to_base64(noise(8, 8))
    answer = client.post(ROUTE, json={"init_images": [picture], "mask": picture, "mask_blur": 100000})
    assert answer.status_code == 422
    assert "mask_blur" in answer.json()["detail"]


def options(**values: object) -> dict[str, Any]:
    return {"override_settings": values}


def repainting(**fields: Any) -> dict[str, Any]:
    mask = to_base64(box_mask(64, 64, (16, 16, 32, 32)))
    return {"mask": mask, "mask_blur": 0, "inpaint_full_res": False, "inpainting_fill": 1, **fields}


def test_masks_and_composites_follow_their_picture_and_have_no_text(client: TestClient) -> None:
    wanted = options(return_mask=True, return_mask_composite=True)
    body = post(client, noise(64, 64), batch_size=2, **repainting(**wanted))
    assert len(body["images"]) == 6
    assert len(json.loads(body["info"])["infotexts"]) == 2
    picture, mask, composite = (from_base64(text) for text in body["images"][3:])
    assert "parameters" in picture.info
    assert "parameters" not in mask.info
    assert (mask.mode, composite.mode) == ("RGB", "RGBA")
    inside = np.zeros((64, 64), dtype=bool)
    inside[16:32, 16:32] = True
    assert np.array_equal(np.asarray(mask)[..., 0] == 255, inside)
    assert np.array_equal(np.asarray(composite)[..., 3] == 255, inside)
    assert (np.asarray(composite)[inside][:, :3] == colour(6)).all()


def test_masks_of_requests_without_one_are_not_returned(client: TestClient) -> None:
    assert len(post(client, noise(64, 64), **options(return_mask=True, return_mask_composite=True))["images"]) == 1


def test_by_products_are_saved_under_their_own_names(client: TestClient, tmp_path: Path) -> None:
    wanted = options(
        save_mask=True,
        save_mask_composite=True,
        img2img_color_correction=True,
        save_images_before_color_correction=True,
        grid_save=False,
    )
    body = post(client, noise(64, 64), save_images=True, **repainting(**wanted))
    assert len(body["images"]) == 1
    names = sorted(path.name for path in (tmp_path / "outputs" / "img2img-images").rglob("*.png"))
    assert [name.split("-", 1)[1] for name in names] == [
        "5-before-color-correction.png",
        "5.png",
        "5-mask.png",
        "5-mask-composite.png",
    ]


def test_colours_are_corrected_towards_the_start(client: TestClient) -> None:
    red = Image.fromarray(np.asarray(noise(64, 64)) // 4 + np.array([180, 0, 0], dtype=np.uint8))
    plain, corrected = (
        pixels(post(client, red, **options(img2img_color_correction=wanted))) for wanted in (False, True)
    )
    assert not np.array_equal(plain, corrected)


def test_without_the_overlay_everything_is_the_engines(client: TestClient) -> None:
    body = post(client, noise(64, 64), **repainting(**options(overlay_inpaint=False)))
    assert (pixels(body) == colour(5)).all()


def test_a_start_that_is_kept_is_named_in_the_text(client: TestClient, tmp_path: Path) -> None:
    picture = noise(64, 64)
    digest = hashlib.md5(picture.tobytes(), usedforsecurity=False).hexdigest()
    for _ in range(2):
        body = post(client, picture, **options(save_init_img=True))
    assert f"Init image hash: {digest}" in json.loads(body["info"])["infotexts"][0]
    (kept,) = (tmp_path / "outputs" / "init-images").iterdir()
    assert kept.name == f"{digest}.png"
    assert np.array_equal(np.asarray(Image.open(kept)), np.asarray(picture))


def test_a_separate_latent_mask_is_what_the_sampler_repaints(client: TestClient, engine: FakeEngine) -> None:
    body = post(client, noise(64, 64), **repainting(latent_mask=to_base64(box_mask(64, 64, (0, 0, 64, 8)))))
    init = engine.specs[0].init
    assert init is not None
    assert init.latent_mask is not None
    assert init.latent_mask[0].all()
    assert not init.latent_mask[1:].any()
    assert (pixels(body)[16:32, 16:32] == colour(5)).all()


def test_a_mask_has_two_levels_for_checkpoints_that_look_at_it(client: TestClient, engine: FakeEngine) -> None:
    grey = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    post(client, noise(64, 64), **repainting(mask=to_base64(grey)))
    post(client, noise(64, 64), **repainting(mask=to_base64(grey), mask_round=False))
    rounded, smooth = (spec.init.mask for spec in engine.specs if spec.init)
    assert rounded is not None
    assert smooth is not None
    assert np.unique(rounded).tolist() == [0, 255]
    assert np.array_equal(rounded > 0, np.asarray(grey) > 127)
    assert np.array_equal(smooth, np.asarray(grey))


def test_a_blank_mask_is_told(client: TestClient) -> None:
    fields = {"init_images": [to_base64(noise(64, 64))], "mask": to_base64(Image.new("L", (64, 64)))}
    answer = client.post(ROUTE, json={"width": 64, "height": 64, **fields})
    assert "mask is blank" in answer.headers["X-Darkroom-Warnings"]


def test_masks_and_pictures_of_different_sizes_are_brought_together(client: TestClient, engine: FakeEngine) -> None:
    mask = to_base64(box_mask(32, 32, (8, 8, 16, 16)))
    body = post(client, noise(96, 96), **repainting(mask=mask))
    assert (pixels(body)[18:30, 18:30] == colour(5)).all()
    post(client, noise(96, 96), **repainting(mask=mask, inpaint_full_res=True))
    init = engine.specs[1].init
    assert init is not None
    assert init.pictures[0].shape == (64, 64, 3)


def test_a_picture_that_grows_goes_through_the_chosen_upscaler(client: TestClient, engine: FakeEngine) -> None:
    small = noise(32, 32)
    post(client, small, **options(upscaler_for_img2img="Nearest"))
    post(client, small, **options(upscaler_for_img2img="no such"))
    post(client, small)
    nearest, unknown, plain = (spec.init.pictures[0] for spec in engine.specs if spec.init)
    assert np.array_equal(nearest, np.asarray(small).repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(unknown, plain)
    assert not np.array_equal(nearest, plain)


def test_inpainting_checkpoints_are_told_to_the_job_and_the_text(serve: Serve, engine: FakeEngine) -> None:
    engine.models = [replace(engine.models[0], traits=Traits(conditioning="inpaint"))]
    document = json.loads(post(serve(), noise(64, 64), **options(inpainting_mask_weight=0.5))["info"])
    assert (engine.specs[0].traits.conditioning, engine.specs[0].mask_weight) == ("inpaint", 0.5)
    assert document["is_using_inpainting_conditioning"] is True
    assert "Denoising strength: 0.75, Conditional mask weight: 0.5" in document["infotexts"][0]
    assert "Conditional mask weight" not in document["extra_generation_params"]
