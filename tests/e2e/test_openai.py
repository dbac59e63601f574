"""The client that OpenAI publishes works unchanged."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest
from openai import OpenAI
from PIL import Image

from darkroom.images.metadata import read_notes
from tests.e2e.serving import Server, apart, picture, pixels, serving


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="nobody-asks", max_retries=0) as found:
        yield found


def png(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    file.name = "picture.png"
    return file


def test_it_draws(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a red apple",
        model="dall-e-2",
        n=2,
        size="64x64",
        response_format="b64_json",
        extra_body={"seed": 5, "steps": 3, "negative_prompt": "blurry"},
    )
    assert answer.data is not None
    pictures = [picture(entry.b64_json or "") for entry in answer.data]
    assert [image.size for image in pictures] == [(64, 64)] * 2
    assert read_notes(pictures[1])[0].startswith("a red apple\nNegative prompt: blurry\nSteps: 3, Sampler: ")
    assert "Seed: 6" in read_notes(pictures[1])[0]


def test_it_draws_what_the_other_routes_draw(client: OpenAI, server: Server) -> None:
    asked = {"prompt": "a house", "seed": 9, "steps": 3, "cfg_scale": 6, "sampler_name": "Euler a"}
    other = server.post("/sdapi/v1/txt2img", {**asked, "width": 64, "height": 64})
    prompt = str(asked.pop("prompt"))
    answer = client.images.generate(prompt=prompt, size="64x64", extra_body=asked)
    assert answer.data is not None
    assert apart(pixels(answer.data[0].b64_json or ""), pixels(other["images"][0])) < 1


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_it_chooses_the_format(client: OpenAI, name: Literal["webp", "jpeg"]) -> None:
    answer = client.images.generate(
        prompt="a cat",
        size="64x64",
        quality="low",
        output_format=name,
        output_compression=60,
    )
    assert answer.data is not None
    found = picture(answer.data[0].b64_json or "")
    assert found.format == name.upper()
    assert "Steps: 12" in read_notes(found)[0]
    assert answer.output_format == name


def test_it_repaints_where_the_mask_is_transparent(client: OpenAI, photo: Image.Image) -> None:
    mask = Image.new("RGBA", photo.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    answer = client.images.edit(
        image=png(photo), mask=png(mask), prompt="a red ball", extra_body={"seed": 5, "steps": 3}
    )
    assert answer.data is not None
    before, after = pixels(photo), pixels(answer.data[0].b64_json or "")
    assert apart(after[:, :48], before[:, :48]) == 0
    assert apart(after[:, 80:], before[:, 80:]) > 2


def test_it_changes_a_whole_picture(client: OpenAI, photo: Image.Image) -> None:
    answer = client.images.edit(image=[png(photo)], prompt="a ball", n=2, extra_body={"steps": 4, "strength": 0.5})
    assert answer.data is not None
    assert [picture(entry.b64_json or "").size for entry in answer.data] == [photo.size] * 2


def test_it_lists_the_models_and_chooses_one(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names
    assert client.models.retrieve(names[0]).object == "model"
    answer = client.images.generate(prompt="a", model=names[0], size="64x64", extra_body={"steps": 1})
    assert answer.data is not None
    assert f"Model: {names[0]}" in read_notes(picture(answer.data[0].b64_json or ""))[0]


def test_it_gets_addresses_of_pictures(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a", size="64x64", response_format="url", extra_body={"steps": 1})
    assert answer.data is not None
    assert answer.data[0].b64_json is None
    assert picture(httpx.get(answer.data[0].url or "").content).size == (64, 64)


def test_it_understands_refusals(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="response_format") as caught:
        client.images.generate(prompt="a", extra_body={"response_format": "file"})
    assert (caught.value.param, caught.value.type) == ("response_format", "invalid_request_error")
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt="a", model="nosuch")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="image"):
        client.images.edit(image=("a.png", b"nonsense", "image/png"), prompt="a")


def test_a_password_is_asked_for_in_its_shape(tmp_path: Path) -> None:
    with serving(tmp_path, "--api-auth", "me:secret", auth=("me", "secret")) as server:
        with OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError) as caught:
                stranger.models.list()
            assert caught.value.type == "authentication_error"
        basic = "Basic " + base64.b64encode(b"me:secret").decode()
        with OpenAI(base_url=f"{server.url}/v1", api_key="x", default_headers={"Authorization": basic}) as friend:
            assert list(friend.models.list())
