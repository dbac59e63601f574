import io
import zipfile
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.unit.api.conftest import from_base64
from tests.unit.api.fake_engine import FakeEngine, colour

ROUTE = "/generate/"
SMALL = {"width": 64, "height": 64}


def test_a_prompt_gives_a_png(client: TestClient, engine: FakeEngine) -> None:
    answer = client.post(ROUTE, json={"prompt": "puppy dog", "seed": 123456789012, **SMALL})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (64, 64)
    assert picture.getpixel((0, 0)) == colour(123456789012)
    assert "Seed: 123456789012" in picture.info["parameters"]
    assert answer.headers["X-Seed"] == "123456789012"
    assert (engine.specs[0].steps, engine.specs[0].prompt) == (20, "puppy dog")


def test_several_pictures_come_as_one_grid(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"number_of_images": 4, "seed": 0, **SMALL})
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (128, 128)
    assert picture.getpixel((64, 64)) == colour(3)


def test_several_pictures_come_as_a_zip_on_request(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"number_of_images": 3, "seed": 7, **SMALL}, headers={"Accept": "application/zip"})
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["00-7.png", "01-8.png", "02-9.png"]


def test_pictures_come_as_json_on_request(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"number_of_images": 2, "seed": 7}, headers={"Accept": "application/json"})
    body = answer.json()
    assert body["seeds"] == [7, 8]
    assert [from_base64(image).getpixel((0, 0)) for image in body["images"]] == [colour(7), colour(8)]


def test_more_pictures_than_a_batch_holds_are_made_one_after_another(client: TestClient, engine: FakeEngine) -> None:
    client.post(ROUTE, json={"number_of_images": 20, **SMALL})
    assert (engine.specs[0].batch_size, engine.specs[0].n_iter) == (1, 20)


def test_fields_may_come_as_a_form_or_in_the_query(client: TestClient, engine: FakeEngine) -> None:
    client.post(ROUTE, data={"prompt": "a cat", "steps": "7"})
    client.post(ROUTE, params={"prompt": "a dog", "seed": "3"})
    assert [spec.prompt for spec in engine.specs] == ["a cat", "a dog"]
    assert engine.specs[0].steps == 7
    assert engine.specs[1].seeds == (3,)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"steps": "x"}, "steps"),
        ({"number_of_images": 0}, "number_of_images"),
        ({"number_of_images": 1000}, "number_of_images"),
        ({"width": -1}, "width"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_wrong_fields_are_refused_by_name(client: TestClient, fields: dict[str, object], name: str) -> None:
    answer = client.post(ROUTE, json=fields)
    assert answer.status_code == 422
    assert name in answer.text


def test_an_interrupt_before_the_first_picture_is_told(client: TestClient, engine: FakeEngine) -> None:
    engine.held = True
    submit = engine.submit

    def submit_and_interrupt(spec: Any, standing: Any = None) -> str:
        job_id = submit(spec, standing)
        engine.finish(job_id, "interrupted", pictures=0)
        return job_id

    engine.submit = submit_and_interrupt  # type: ignore[method-assign]
    answer = client.post(ROUTE, json={})
    assert answer.status_code == 409
    assert "stopped" in answer.json()["detail"]
