from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

from darkroom.jobs.networks import AdapterInfo
from tests.unit.api.conftest import noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

ROUTE = "/sdapi/v1/png-info"
TEXT = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"


def test_the_text_and_the_other_notes_of_a_png_are_told(client: TestClient) -> None:
    notes = PngInfo()
    notes.add_text("parameters", TEXT)
    notes.add_text("other", "zz")
    body = client.post(ROUTE, json={"image": to_base64(noise(8, 8), pnginfo=notes)}).json()
    assert body["info"] == TEXT
    assert body["items"] == {"other": "zz"}
    assert list(body["parameters"])[:8] == [
        "Steps",
        "Sampler",
        "CFG scale",
        "Seed",
        "Size-1",
        "Size-2",
        "Prompt",
        "Negative prompt",
    ]
    assert body["parameters"]["Prompt"] == "a cat"


def test_a_picture_without_notes_has_the_defaults(client: TestClient) -> None:
    body = client.post(ROUTE, json={"image": to_base64(noise(8, 8))}).json()
    assert (body["info"], body["items"]) == ("", {})
    assert body["parameters"]["Clip skip"] == "1"
    assert body["parameters"]["Refiner switch by sampling steps"] is False


def test_every_generated_picture_can_be_read_back(client: TestClient) -> None:
    for file_format in ("png", "jpg", "webp", "avif", "gif"):
        client.post("/sdapi/v1/options", json={"samples_format": file_format})
        image = client.post("/sdapi/v1/txt2img", json={"prompt": "猫, (a:1.2)", "seed": 5}).json()["images"][0]
        body = client.post(ROUTE, json={"image": f" {image}\n"}).json()
        assert body["parameters"]["Prompt"] == "猫, (a:1.2)"
        assert body["parameters"]["Seed"] == "5"


def test_networks_are_named_as_they_are_called_here(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.adapters = [
        AdapterInfo(name="file", alias="alias", filename="file.safetensors", metadata={}),
        AdapterInfo(name="b", alias="b", filename="b.safetensors", metadata={"sshs_model_hash": "bbbbbbbbbbbb99"}),
    ]
    engine.shelf.hashes = {"file": "aaaaaaaaaaaa"}
    notes = PngInfo()
    hashes = '"file: aaaaaaaaaaaa, old: bbbbbbbbbbbb, gone: cccccccccccc"'
    text = f"a <lora:file:1> <lora:old:0.5> <lora:gone:1>\nSteps: 20, Seed: 5, Size: 8x8, Lora hashes: {hashes}"
    notes.add_text("parameters", text)
    body = client.post(ROUTE, json={"image": to_base64(noise(8, 8), pnginfo=notes)}).json()
    assert body["info"] == text
    assert body["parameters"]["Prompt"] == "a <lora:alias:1> <lora:b:0.5> <lora:gone:1>"
