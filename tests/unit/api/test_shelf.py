"""Every file of weights in one list, with what lies beside it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from darkroom.jobs.networks import AdapterInfo, EmbeddingInfo, FaceRestorerInfo, HypernetworkInfo, VaeInfo
from darkroom.jobs.spec import CheckpointInfo
from tests.unit.api.conftest import Serve, noise
from tests.unit.api.fake_engine import ABSENT, MODELS, TWICE, FakeEngine

ROUTE = "/models"


def listed(client: TestClient, *kinds: str) -> list[dict[str, Any]]:
    answer = client.get(ROUTE, params={"kind": list(kinds)})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def adapter(path: Path, **changes: Any) -> AdapterInfo:
    return replace(AdapterInfo(name="ink", alias="Ink Wash", filename=str(path), metadata={}), **changes)


def with_header(path: Path, texts: object) -> None:
    header = json.dumps({"__metadata__": texts}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_all_kinds_are_listed_and_can_be_asked_for_apart(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.upscalers = [TWICE, ABSENT]
    kinds = {model["kind"] for model in listed(client)}
    assert {"checkpoint", "upscaler", "face-restorer"} == kinds
    assert {model["kind"] for model in listed(client, "checkpoint", "face-restorer")} == {"checkpoint", "face-restorer"}
    assert client.get(ROUTE, params={"kind": "cat"}).status_code == 422


def test_the_checkpoint_in_use_is_marked(client: TestClient) -> None:
    client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "bar"})
    used = [model["title"] for model in listed(client, "checkpoint") if model["in_use"]]
    assert used == ["sub_bar"]


def test_no_checkpoint_at_all_is_an_empty_list(client: TestClient, engine: FakeEngine) -> None:
    engine.models.clear()
    assert listed(client, "checkpoint", "embedding") == []


def test_what_lies_beside_a_file_is_told(serve: Serve, engine: FakeEngine, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Lora"
    folder.mkdir(parents=True)
    file = folder / "ink.v2.safetensors"
    file.write_bytes(b"12345")
    noise(8, 8).save(folder / "ink.v2.preview.png")
    (folder / "ink.v2.txt").write_text(" brushes <b> \n")
    engine.shelf.adapters = [adapter(file, activation_text="ink wash", preferred_weight=0.8)]
    client = serve(models_dir=tmp_path / "models")
    [found] = listed(client, "lora")
    assert (found["name"], found["title"], found["bytes"]) == ("ink", "Ink Wash", 5)
    assert found["description"] == "brushes <b>"
    assert found["insert"] == "<lora:Ink Wash:0.8> ink wash"
    assert client.get(found["preview"]).headers["content-type"] == "image/png"


def test_a_picture_of_the_very_name_comes_before_a_preview(serve: Serve, engine: FakeEngine, tmp_path: Path) -> None:
    for name in ("a.preview.png", "a.PNG", "ab.png"):
        noise(8, 8).save(tmp_path / name)
    engine.models = [CheckpointInfo(key="a", filename=str(tmp_path / "a.ckpt"), path="a.ckpt")]
    [found] = listed(serve(models_dir=tmp_path), "checkpoint")
    assert "a.PNG" in found["preview"]
    assert found["bytes"] is None


def test_a_json_beside_a_file_may_hold_its_description(serve: Serve, engine: FakeEngine, tmp_path: Path) -> None:
    client = serve(models_dir=tmp_path)
    engine.shelf.adapters = [adapter(tmp_path / "ink.safetensors")]
    for text, words in (
        ('{"description": "fine lines"}', "fine lines"),
        ("[1]", ""),
        ("{", ""),
        ('{"description": 3}', ""),
    ):
        (tmp_path / "ink.json").write_text(text)
        assert [model["description"] for model in listed(client, "lora")] == [words]


def test_a_tag_names_the_file_where_the_alias_means_several(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.adapters = [
        adapter(Path("/a"), name="one"),
        adapter(Path("/b"), name="two"),
        adapter(Path("/c"), name="three", alias="Two"),
        adapter(Path("/d"), name="four", alias="Four seasons"),
    ]
    tags = [model["insert"] for model in listed(client, "lora")]
    assert tags == ["<lora:one:1>", "<lora:two:1>", "<lora:three:1>", "<lora:Four seasons:1>"]
    client.post("/sdapi/v1/options", json={"lora_preferred_name": "Filename", "extra_networks_default_multiplier": 0.5})
    assert listed(client, "lora")[3]["insert"] == "<lora:four:0.5>"


def test_what_cannot_be_used_says_why(client: TestClient, engine: FakeEngine) -> None:
    engine.models = [replace(MODELS[0], text_width=768)]
    engine.shelf.embeddings = [
        EmbeddingInfo(name=name, filename=f"/{name}", short_hash="0", vectors=1, width=width)
        for name, width in (("fits", 768), ("other", 1024))
    ]
    engine.shelf.upscalers = [ABSENT]
    found = {model["name"]: model for model in listed(client)}
    assert found["fits"]["usable"]
    assert "another kind of checkpoint" in found["other"]["lack"]
    assert "its file is missing" in found[ABSENT.name]["lack"]
    assert "its file is missing" in found["GFPGAN"]["lack"]
    assert not found["GFPGAN"]["usable"]


def test_small_networks_in_use_are_marked(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.autoencoders = [VaeInfo(name="soft.pt", filename="/soft.pt")]
    engine.shelf.hypernetworks = [HypernetworkInfo(name="ghost", filename="/ghost.pt")]
    engine.shelf.face_restorers = [FaceRestorerInfo(name="GFPGAN", filename="/g.pth", wanted="/g.pth")]
    client.post(
        "/sdapi/v1/options", json={"sd_vae": "soft.pt", "sd_hypernetwork": "ghost", "face_restoration_model": "GFPGAN"}
    )
    found = listed(client, "vae", "hypernetwork", "face-restorer")
    assert [(model["name"], model["in_use"]) for model in found] == [
        ("ghost", True),
        ("soft.pt", True),
        ("GFPGAN", True),
    ]
    assert found[0]["insert"] == "<hypernet:ghost:1>"


def test_metadata_is_what_the_header_says(client: TestClient, engine: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    engine.shelf.adapters = [adapter(file)]

    def metadata() -> Any:
        return client.get("/models/metadata", params={"kind": "lora", "name": "ink"}).json()

    with_header(
        file, {"ss_tag_frequency": '{"a": {"b": 1}}', "author": "<i>", "ssmd_cover_images": "[...]", "odd": "{"}
    )
    assert metadata() == {"ss_tag_frequency": {"a": {"b": 1}}, "author": "<i>", "odd": "{"}
    for wrong in (b"", b"PK\x03\x04" * 9, (2**60).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"):
        file.write_bytes(wrong)
        assert metadata() == {}
    with_header(file, "no texts")
    assert metadata() == {}
    file.unlink()
    assert metadata() == {}


def test_metadata_of_an_unknown_model_is_refused(client: TestClient) -> None:
    answer = client.get("/models/metadata", params={"kind": "lora", "name": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_name")
