"""`POST /generate/`: one picture, a grid, a ZIP or JSON."""

import base64
import io
import zipfile

from tests.e2e.serving import Server, apart, picture, pixels

BODY = {
    "prompt": "puppy dog",
    "width": 64,
    "height": 64,
    "cfg_scale": 7,
    "steps": 3,
    "number_of_images": 1,
    "seed": 123456789012,
}


def test_one_picture_comes_as_png_and_a_12_digit_seed_works(server: Server) -> None:
    answer = server.client.post("/generate/", json=BODY)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    image = picture(answer.content)
    assert image.size == (64, 64)
    assert "Seed: 123456789012" in image.info["parameters"]


def test_several_pictures_come_as_one_grid(server: Server) -> None:
    answer = server.client.post("/generate/", json=BODY | {"number_of_images": 4})
    assert answer.headers["content-type"] == "image/png"
    width, height = picture(answer.content).size
    assert width * height >= 4 * 64 * 64


def test_several_pictures_come_as_a_zip_when_asked(server: Server) -> None:
    answer = server.client.post(
        "/generate/", json=BODY | {"number_of_images": 3}, headers={"Accept": "application/zip"}
    )
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
        assert len(names) == 3
        assert all(picture(archive.read(name)).size == (64, 64) for name in names)


def test_several_pictures_come_as_json_when_asked(server: Server) -> None:
    answer = server.client.post(
        "/generate/", json=BODY | {"number_of_images": 2}, headers={"Accept": "application/json"}
    )
    found = answer.json()
    assert len(found["images"]) == 2
    assert all(base64.b64decode(image)[:4] == b"\x89PNG" for image in found["images"])


def test_it_draws_what_txt2img_draws(server: Server) -> None:
    mine = server.client.post("/generate/", json=BODY | {"seed": 42})
    theirs = server.post(
        "/sdapi/v1/txt2img", {"prompt": "puppy dog", "width": 64, "height": 64, "cfg_scale": 7, "steps": 3, "seed": 42}
    )
    assert apart(pixels(mine.content), pixels(theirs["images"][0])) < 0.5
