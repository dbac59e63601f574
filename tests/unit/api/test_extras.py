import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve, from_base64, noise, to_base64

SINGLE = "/sdapi/v1/extra-single-image"
BATCH = "/sdapi/v1/extra-batch-images"


def test_a_picture_grows_by_a_factor_to_sides_that_eight_divides(client: TestClient) -> None:
    body = {"image": to_base64(noise(50, 30)), "upscaling_resize": 1.5, "upscaler_1": "Nearest"}
    answer = client.post(SINGLE, json=body).json()
    picture = from_base64(answer["image"])
    assert picture.size == (72, 40)
    assert answer["html_info"] == "<p>Postprocess upscale by: 1.5, Postprocess upscaler: Nearest</p>"
    assert picture.info["postprocessing"] == "Postprocess upscale by: 1.5, Postprocess upscaler: Nearest"


def test_a_picture_that_is_cropped_has_exactly_the_size(client: TestClient) -> None:
    fields = {"resize_mode": 1, "upscaling_resize_w": 100, "upscaling_resize_h": 60, "upscaler_1": "Lanczos"}
    body = {"image": to_base64(noise(32, 32)), **fields}
    cropped = client.post(SINGLE, json=body).json()
    assert from_base64(cropped["image"]).size == (100, 60)
    assert "Postprocess crop to: 100x60" in cropped["html_info"]
    covering = client.post(SINGLE, json={**body, "upscaling_crop": False}).json()
    assert from_base64(covering["image"]).size == (96, 96)


def test_the_second_upscaler_is_laid_over_the_first(client: TestClient) -> None:
    source = to_base64(noise(16, 16))

    def pixels(**fields: object) -> np.ndarray:
        picture = client.post(SINGLE, json={"image": source, **fields}).json()["image"]
        return np.asarray(from_base64(picture)).astype(float)

    first, second = pixels(upscaler_1="Lanczos"), pixels(upscaler_1="Nearest")
    both = pixels(upscaler_1="Lanczos", upscaler_2="Nearest", extras_upscaler_2_visibility=0.25)
    assert np.abs(both - (0.75 * first + 0.25 * second)).max() <= 1


def test_without_a_first_upscaler_the_picture_stays_with_its_notes(client: TestClient) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "a cat\nSteps: 3")
    chunks.add_text("note", "mine")
    source = noise(20, 20)
    answer = client.post(SINGLE, json={"image": to_base64(source, pnginfo=chunks), "upscaler_2": "Nearest"}).json()
    picture = from_base64(answer["image"])
    assert answer["html_info"] == "<p></p>"
    assert (np.asarray(picture) == np.asarray(source)).all()
    assert picture.info == {"parameters": "a cat\nSteps: 3", "note": "mine", "postprocessing": ""}


def test_transparency_survives(client: TestClient) -> None:
    source = Image.new("RGBA", (16, 16), (200, 100, 50, 30))
    answer = client.post(SINGLE, json={"image": to_base64(source), "upscaler_1": "Lanczos"}).json()
    assert from_base64(answer["image"]).mode == "RGBA"


def test_several_pictures_come_back_in_order(client: TestClient) -> None:
    pictures = [{"data": to_base64(noise(side, side)), "name": "x"} for side in (16, 24)]
    answer = client.post(BATCH, json={"imageList": pictures, "upscaler_1": "Lanczos"}).json()
    assert [from_base64(image).size for image in answer["images"]] == [(32, 32), (48, 48)]
    assert client.post(BATCH, json={"imageList": []}).json()["images"] == []


@pytest.mark.parametrize("name", ["Lanczoz", "lanczos", "nope"])
def test_an_unknown_upscaler_is_refused_with_the_near_misses(client: TestClient, name: str) -> None:
    answer = client.post(SINGLE, json={"image": to_base64(noise(16, 16)), "upscaler_1": name})
    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_name"
    assert answer.json()["errors"] == f"could not find upscaler named {name}"
    assert f"upscaler_1: '{name}' is not allowed; known: " in answer.json()["detail"]


@pytest.mark.parametrize("path", [SINGLE, BATCH])
@pytest.mark.parametrize("field", ["upscaler_1", "upscaler_2"])
def test_an_unknown_upscaler_never_becomes_a_job(client: TestClient, path: str, field: str) -> None:
    picture = to_base64(noise(16, 16))
    body = {"image": picture, "imageList": [{"data": picture, "name": "x"}], "upscaler_1": "Lanczos", field: "nope"}
    answer = client.post(path, json=body, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_name")
    assert answer.json()["detail"].startswith(f"{field}: 'nope'")
    assert client.get("/jobs").json()["jobs"] == []


def test_a_second_upscaler_that_is_never_asked_may_have_any_name(client: TestClient) -> None:
    body = {"image": to_base64(noise(16, 16)), "upscaler_2": "nope"}
    assert client.post(SINGLE, json=body, headers={"Prefer": "respond-async"}).status_code == 202
    assert client.post(BATCH, json={"imageList": [], "upscaler_1": "nope"}).json()["images"] == []


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("resize_mode", 2, "value_error.const"),
        ("resize_mode", True, "value_error.const"),
        ("upscaling_resize", 0, "value_error.number.not_gt"),
        ("upscaling_resize_w", 0, "value_error.number.not_ge"),
        ("extras_upscaler_2_visibility", 1.5, "value_error.number.not_le"),
        ("gfpgan_visibility", -0.5, "value_error.number.not_ge"),
        ("image", None, "type_error.none.not_allowed"),
    ],
)
def test_a_value_out_of_its_range_is_named(client: TestClient, field: str, value: object, kind: str) -> None:
    answer = client.post(SINGLE, json={field: value})
    assert answer.status_code == 422
    [entry] = answer.json()["detail"]
    assert (entry["loc"], entry["type"]) == (["body", field], kind)


@pytest.mark.parametrize("fields", [{"upscaling_resize": 100}, {"resize_mode": 1, "upscaling_resize_w": 100_000}])
def test_a_picture_above_the_limit_is_refused_before_it_is_made(serve: Serve, fields: dict[str, object]) -> None:
    client = serve(max_image_pixels=1_000_000)
    body = {"image": to_base64(noise(64, 64)), "upscaler_1": "Lanczos", **fields}
    for headers in ({}, {"Prefer": "respond-async"}):
        answer = client.post(SINGLE, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")


def test_a_picture_that_would_vanish_is_refused(client: TestClient) -> None:
    body = {"image": to_base64(noise(16, 16)), "upscaler_1": "Lanczos", "upscaling_resize": 0.1}
    assert client.post(SINGLE, json=body).status_code == 422


def test_faces_that_nobody_restores_are_said_to_be_left(client: TestClient) -> None:
    answer = client.post(SINGLE, json={"image": to_base64(noise(16, 16)), "gfpgan_visibility": 1})
    assert answer.status_code == 200
    assert answer.headers["X-Darkroom-Ignored"] == "gfpgan_visibility"
    assert "GFPGAN" not in answer.json()["html_info"]


def test_a_picture_that_is_none_is_refused(client: TestClient) -> None:
    for path, body in ((SINGLE, {}), (BATCH, {"imageList": [{"data": "x", "name": "y"}]})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_image")
