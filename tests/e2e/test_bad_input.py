"""Every wrong request gets a 4xx that names the field, and the server goes on serving."""

import base64
import struct
import zlib

import pytest
from PIL import Image

from tests.e2e.serving import Json, Server, as_base64

SMALL: Json = {"prompt": "apple", "steps": 2, "width": 64, "height": 64, "seed": 7}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> str:
    """100 megapixels of black: about 12 kB of file for 100 MB of pixels."""
    side = 10_000
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(png) < 150_000
    return base64.b64encode(png).decode()


BAD_TXT2IMG: dict[str, tuple[str, object]] = {
    "a number that is none": ("steps", "many"),
    "a number that is a list": ("cfg_scale", [7]),
    "a prompt that is a list": ("prompt", ["a", "b"]),
    "a seed that is a word": ("seed", "abc"),
    "a seed beyond 64 bits": ("seed", 2**70),
    "no width": ("width", 0),
    "a negative height": ("height", -64),
    "a width under one latent cell": ("width", 4),
    "a size above the limit": ("width", 100_000),
    "no steps": ("steps", 0),
    "negative steps": ("steps", -3),
    "steps above the limit": ("steps", 100_000),
    "an empty batch": ("batch_size", 0),
    "a batch above the limit": ("batch_size", 100_000),
    "an n_iter above the limit": ("n_iter", 100_000),
    "a null prompt": ("prompt", None),
    "options that are text": ("override_settings", "abc"),
    "an option of a wrong type": ("override_settings", {"CLIP_stop_at_last_layers": "abc"}),
}


@pytest.mark.parametrize("name", BAD_TXT2IMG)
def test_a_bad_txt2img_names_its_field(server: Server, name: str) -> None:
    field, value = BAD_TXT2IMG[name]
    answer = server.client.post("/sdapi/v1/txt2img", json=SMALL | {field: value})
    assert 400 <= answer.status_code < 500, answer.text
    assert field in answer.text
    assert_still_serving(server)


def test_many_values_that_fit_one_by_one_but_not_together_are_refused(server: Server) -> None:
    answer = server.client.post("/sdapi/v1/txt2img", json=SMALL | {"width": 2**40, "height": 2**40})
    assert 400 <= answer.status_code < 500
    assert_still_serving(server)


BAD_PICTURES: dict[str, object] = {
    "not base64": "notanimage",
    "base64 of no picture": base64.b64encode(b"hello world").decode(),
    "nothing": "",
    "null": None,
    "half a picture": as_base64(Image.effect_noise((64, 64), 50))[:2000],
    "a web address": "http://127.0.0.1:1/secret.png",
    "a file": "/etc/passwd",
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_init_image_is_refused(server: Server, name: str) -> None:
    answer = server.client.post("/sdapi/v1/img2img", json=SMALL | {"init_images": [BAD_PICTURES[name]]})
    assert 400 <= answer.status_code < 500, answer.text
    assert "init_images" in answer.text
    assert_still_serving(server)


@pytest.mark.parametrize("route", ["init_images", "mask", "png-info"])
def test_a_small_file_of_100_megapixels_is_refused(server: Server, route: str) -> None:
    bomb = huge_png()
    if route == "png-info":
        answer = server.client.post("/sdapi/v1/png-info", json={"image": bomb})
    else:
        body = SMALL | {"init_images": [as_base64(Image.new("RGB", (64, 64)))], "mask": None}
        answer = server.client.post(
            "/sdapi/v1/img2img", json=body | {route: [bomb] if route == "init_images" else bomb}
        )
    assert 400 <= answer.status_code < 500, answer.text
    assert_still_serving(server)


def test_img2img_without_a_picture_is_404(server: Server) -> None:
    for body in ({}, {"init_images": None}):
        answer = server.client.post("/sdapi/v1/img2img", json=body)
        assert answer.status_code == 404
        assert "Init image not found" in answer.text


@pytest.mark.parametrize("content", ["", "[1]", "null", "{", '"text"', "{" * 10_000])
def test_a_body_that_is_no_object_is_refused(server: Server, content: str) -> None:
    answer = server.client.post("/sdapi/v1/txt2img", content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert_still_serving(server)


def test_unknown_paths_and_methods_are_answered_in_json(server: Server) -> None:
    unknown = server.client.get("/sdapi/v1/nothing")
    assert unknown.status_code == 404
    assert unknown.json() == {"detail": "Not Found"}
    assert server.client.get("/sdapi/v1/txt2img").status_code == 405


def test_the_generate_route_refuses_too(server: Server) -> None:
    for field, value in (("number_of_images", 100_000), ("steps", -1), ("width", "wide"), ("prompt", [])):
        answer = server.client.post("/generate/", json={"prompt": "apple", "steps": 1, field: value})
        assert 400 <= answer.status_code < 500, answer.text
        assert field in answer.text


def test_no_answer_and_no_log_line_shows_a_traceback(server: Server) -> None:
    answer = server.client.post("/sdapi/v1/txt2img", json=SMALL | {"width": -1})
    assert "Traceback" not in answer.text
    assert "Traceback" not in server.log.read_text()


def assert_still_serving(server: Server) -> None:
    assert server.client.get("/health").status_code == 200
