"""The routes under /v1, on an engine whose pictures are plain colours."""

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.api.openai.pictures import KEPT_S, KeptPictures
from darkroom.images.metadata import read_notes
from tests.unit.api.conftest import Serve, from_base64
from tests.unit.api.fake_engine import FakeEngine, colour

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def generate(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post(GENERATIONS, json={"prompt": "a cat", "size": "64x64", **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(client: TestClient, status: int, **fields: Any) -> dict[str, Any]:
    answer = client.post(GENERATIONS, json={"prompt": "a cat", "size": "64x64", **fields})
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


def edit(client: TestClient, files: dict[str, bytes], **fields: Any) -> Any:
    parts = {name: (f"{name}.png", data, "image/png") for name, data in files.items()}
    return client.post(EDITS, data={"prompt": "a cat", **fields}, files=parts)


def half_transparent(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Opaque on the left, transparent on the right."""
    picture = Image.new("RGBA", size, (10, 20, 30, 255))
    picture.paste((0, 0, 0, 0), (size[0] // 2, 0, *size))
    return picture


def test_a_generation_answers_with_its_pictures(client: TestClient, engine: FakeEngine) -> None:
    body = generate(client, n=2, seed=5, steps=3, negative_prompt="blurry")
    assert [entry["seed"] for entry in body["data"]] == [5, 6]
    pictures = [from_base64(entry["b64_json"]) for entry in body["data"]]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [colour(5), colour(6)]
    assert read_notes(pictures[0])[0].startswith("a cat\nNegative prompt: blurry\nSteps: 3")
    assert (body["size"], body["output_format"], body["background"]) == ("64x64", "png", "opaque")
    assert (engine.specs[0].batch_size, engine.specs[0].steps) == (2, 3)


@pytest.mark.parametrize(
    ("quality", "steps", "said"),
    [
        ("low", 12, "low"),
        ("auto", 20, "medium"),
        ("standard", 20, "medium"),
        ("hd", 30, "high"),
        ("max", 50, "max"),
        (None, 20, "medium"),
    ],
)
def test_quality_is_a_number_of_steps(
    client: TestClient, engine: FakeEngine, quality: str | None, steps: int, said: str
) -> None:
    assert generate(client, quality=quality)["quality"] == said
    assert engine.specs[0].steps == steps


@pytest.mark.parametrize("size", ["auto", None, ""])
def test_an_automatic_size_is_the_models_own(client: TestClient, engine: FakeEngine, size: str | None) -> None:
    generate(client, size=size)
    assert (engine.specs[0].width, engine.specs[0].height) == (512, 512)


@pytest.mark.parametrize(("asked", "got"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG"), (None, "PNG")])
def test_the_format_is_the_requests(client: TestClient, asked: str | None, got: str) -> None:
    body = generate(client, output_format=asked, output_compression=0)
    picture = from_base64(body["data"][0]["b64_json"])
    assert picture.format == got
    assert "Steps: 20" in read_notes(picture)[0]


def test_a_model_is_chosen_by_its_id(client: TestClient, engine: FakeEngine) -> None:
    generate(client, model="sub_bar")
    assert engine.specs[0].checkpoint == "sub/bar"


@pytest.mark.parametrize("name", ["dall-e-3", "gpt-image-1"])
def test_openais_own_models_stand_for_the_one_in_use(client: TestClient, engine: FakeEngine, name: str) -> None:
    answer = client.post(GENERATIONS, json={"prompt": "a cat", "size": "64x64", "model": name, "style": "vivid"})
    assert name in answer.headers["X-Darkroom-Warnings"]
    assert answer.headers["X-Darkroom-Ignored"] == "style"
    assert engine.specs[0].checkpoint == "small-a"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"response_format": "file"}, 400, "response_format"),
        ({"background": "transparent"}, 400, "background"),
        ({"stream": True}, 400, "stream"),
        ({"size": "huge"}, 400, "size"),
        ({"size": "99999x64"}, 400, "size"),
        ({"quality": "best"}, 400, "quality"),
        ({"output_format": "bmp"}, 400, "output_format"),
        ({"output_compression": 101}, 400, "output_compression"),
        ({"n": 0}, 400, "n"),
        ({"n": 1000}, 400, "n"),
        ({"steps": 100_000}, 400, "steps"),
        ({"seed": "five"}, 400, "seed"),
        ({"prompt": None}, 400, "prompt"),
        ({"model": "nosuch"}, 404, "model"),
    ],
)
def test_a_refusal_names_the_field(client: TestClient, fields: dict[str, Any], status: int, param: str) -> None:
    error = refusal(client, status, **fields)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert param in error["message"]


def test_a_body_that_is_no_json_is_refused_in_the_same_shape(client: TestClient) -> None:
    answer = client.post(GENERATIONS, content=b"{")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_full_queue_is_a_rate_limit(client: TestClient, engine: FakeEngine) -> None:
    engine.capacity = 0
    answer = client.post(GENERATIONS, json={"prompt": "a cat", "size": "64x64"})
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["Retry-After"]) >= 1


def test_what_is_transparent_in_the_mask_is_repainted(client: TestClient, engine: FakeEngine) -> None:
    files = {"image": png(Image.new("RGB", (64, 64), (1, 2, 3))), "mask": png(half_transparent())}
    answer = edit(client, files, seed="7")
    assert answer.status_code == 200, answer.text
    spec = engine.specs[0]
    assert (spec.kind, spec.width, spec.height, spec.seeds) == ("img2img", 64, 64, (7,))
    assert spec.init is not None
    assert spec.init.denoising_strength == 1
    assert spec.init.latent_mask is not None
    assert spec.init.latent_mask[:, :2].max() == 0
    assert spec.init.latent_mask[:, -2:].min() == 1
    assert from_base64(answer.json()["data"][0]["b64_json"]).getpixel((0, 0)) == (1, 2, 3)


def test_without_a_mask_the_pictures_own_transparency_is_one(client: TestClient, engine: FakeEngine) -> None:
    assert edit(client, {"image": png(half_transparent())}).status_code == 200
    init = engine.specs[0].init
    assert init is not None
    assert init.latent_mask is not None
    assert init.latent_mask[:, -2:].min() == 1


def test_what_is_transparent_in_part_stays(client: TestClient, engine: FakeEngine) -> None:
    mask = half_transparent()
    mask.paste((0, 0, 0, 1), (0, 0, 32, 64))
    assert edit(client, {"image": png(Image.new("RGB", (64, 64))), "mask": png(mask)}).status_code == 200
    init = engine.specs[0].init
    assert init is not None
    assert init.latent_mask is not None
    assert init.latent_mask[:, :2].max() == 0


def test_without_any_transparency_the_whole_picture_changes(client: TestClient, engine: FakeEngine) -> None:
    picture = Image.new("RGB", (72, 48))
    assert edit(client, {"image": png(picture)}, strength="0.5", quality="low").status_code == 200
    spec = engine.specs[0]
    assert (spec.width, spec.height, spec.steps) == (72, 48, 12)
    assert spec.init is not None
    assert (spec.init.latent_mask, spec.init.denoising_strength) == (None, 0.5)


def test_a_picture_that_is_too_large_is_edited_smaller(serve: Serve, engine: FakeEngine) -> None:
    client = serve(max_width=64, max_height=64)
    assert edit(client, {"image": png(Image.new("RGB", (200, 100)))}).status_code == 200
    assert (engine.specs[0].width, engine.specs[0].height) == (64, 32)


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ({}, {}, "image"),
        ({"image": b"nonsense"}, {}, "image"),
        ({"image": png(Image.new("RGB", (64, 64))), "mask": png(Image.new("RGB", (64, 64)))}, {}, "mask"),
        ({"image": png(Image.new("RGB", (64, 64))), "mask": png(half_transparent((32, 32)))}, {}, "mask"),
        ({"image": png(Image.new("RGB", (64, 64)))}, {"n": "many"}, "n"),
        ({"image": png(Image.new("RGB", (64, 64)))}, {"strength": "-1"}, "strength"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(
    client: TestClient, files: dict[str, bytes], fields: dict[str, str], param: str
) -> None:
    answer = edit(client, files, **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_several_pictures_are_refused_rather_than_dropped(client: TestClient) -> None:
    data = png(Image.new("RGB", (64, 64)))
    parts = [("image[]", ("a.png", data, "image/png")), ("image[]", ("b.png", data, "image/png"))]
    answer = client.post(EDITS, data={"prompt": "a cat"}, files=parts)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "image"


def test_a_body_that_is_no_form_is_refused(client: TestClient) -> None:
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x"):
        answer = client.post(EDITS, content=json.dumps({"prompt": "a"}), headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text
        assert "message" in answer.json()["error"]


def test_the_models_are_the_checkpoints(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    assert [entry["id"] for entry in body["data"]] == ["small-a", "sub_bar"]
    assert {entry["object"] for entry in body["data"]} == {"model"}


@pytest.mark.parametrize("name", ["sub_bar", "sub/bar.safetensors", "sub%2Fbar.safetensors"])
def test_one_model_can_be_asked_for_by_any_of_its_names(client: TestClient, name: str) -> None:
    assert client.get(f"/v1/models/{name}").json()["id"] == "sub_bar"


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    answer = client.get("/v1/models/nosuch")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_pictures_are_plain_base64(client: TestClient) -> None:
    assert base64.b64decode(generate(client)["data"][0]["b64_json"], validate=True).startswith(b"\x89PNG")


def test_a_number_that_no_engine_can_draw_is_refused_by_its_name(client: TestClient) -> None:
    error = refusal(client, 400, cfg_scale=-6.4e240)
    assert error["param"] == "cfg_scale"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/chat/completions", 404, "not_found"),
        ("POST", "/v1/images/variations", 404, "not_found"),
        ("GET", GENERATIONS, 405, "method_not_allowed"),
    ],
)
def test_a_path_that_is_not_there_is_refused_in_the_same_shape(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, code)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
def test_a_body_above_the_limit_is_refused_in_the_same_shape(serve: Serve, path: str, declared: bool) -> None:
    data = b'{"prompt": "' + b"x" * 3000
    body: Any = data if declared else iter([data[:1000], data[1000:]])
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if path == EDITS else {}
    answer = serve(max_body_bytes=2000).post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"response_format": "url"}, ["url", "seed"]),
        ({"response_format": "b64_json", "model": "dall-e-3"}, ["b64_json", "seed"]),
        ({"model": "dall-e-3"}, ["b64_json", "url", "seed"]),
        ({"model": "gpt-image-1"}, ["b64_json", "seed"]),
        ({}, ["b64_json", "seed"]),
    ],
)
def test_a_picture_comes_with_the_answer_or_by_its_address(
    client: TestClient, fields: dict[str, str], keys: list[str]
) -> None:
    (entry,) = generate(client, seed=5, output_format="webp", **fields)["data"]
    assert list(entry) == keys
    if "url" in entry:
        assert entry["url"].startswith("http://testserver/v1/pictures/")
        answer = client.get(entry["url"])
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert picture.size == (64, 64)
            assert read_notes(picture)[0].startswith("a cat")


def test_the_address_of_a_picture_is_all_that_it_takes_to_fetch_it(serve: Serve) -> None:
    client = serve(api_auth="me:secret")
    body = {"prompt": "a cat", "size": "64x64", "response_format": "url"}
    address = client.post(GENERATIONS, json=body, auth=("me", "secret")).json()["data"][0]["url"]
    assert client.get(address).status_code == 200
    assert client.get(address + "x").status_code == 404
    assert client.get("/v1/pictures/").status_code in {401, 404}
    assert client.get("/v1/models").status_code == 401


def test_below_a_path_the_address_has_it_too(serve: Serve) -> None:
    below = TestClient(serve().app, root_path="/studio")
    body = {"prompt": "a cat", "size": "64x64", "response_format": "url"}
    answer = below.post(f"/studio{GENERATIONS}", json=body)
    assert answer.json()["data"][0]["url"].startswith("http://testserver/studio/v1/pictures/")


def test_pictures_are_kept_for_an_hour_and_only_so_many() -> None:
    now = [0.0]
    kept = KeptPictures(clock=lambda: now[0], max_bytes=10)
    first, second = kept.put(b"1234", "image/png"), kept.put(b"5678", "image/png")
    assert [kept.find(name) is not None for name in (first, second, "")] == [True, True, False]
    third = kept.put(b"abcd", "image/png")
    assert [kept.find(name) is not None for name in (first, second, third)] == [False, True, True]
    now[0] = KEPT_S
    assert [kept.find(name) for name in (second, third)] == [None, None]
