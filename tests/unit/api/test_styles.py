import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine

ROUTE = "/sdapi/v1/prompt-styles"
FILE = "name,prompt,negative_prompt\noil,oil of {prompt}, ugly\nsharp,4k # not soft,\ndouble,{prompt} {prompt},\n"


@pytest.fixture
def styled(serve: Serve, tmp_path: Path) -> TestClient:
    (tmp_path / "styles.csv").write_text(FILE, encoding="utf-8-sig")
    return serve()


def draw(client: TestClient, **fields: Any) -> Any:
    return client.post("/sdapi/v1/txt2img", json={"width": 64, "height": 64, **fields})


def test_styles_are_listed_as_clients_expect_them(styled: TestClient) -> None:
    assert styled.get(ROUTE).json()[0] == {"name": "oil", "prompt": "oil of {prompt}", "negative_prompt": "ugly"}
    assert [style["name"] for style in styled.get(ROUTE).json()] == ["oil", "sharp", "double"]


def test_without_a_file_there_are_none(client: TestClient) -> None:
    assert client.get(ROUTE).json() == []


def test_several_files_can_be_named(serve: Serve, tmp_path: Path) -> None:
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.csv").write_text(f"name,prompt\n{stem},x\n")
    client = serve(styles_file=f"{tmp_path}/a.csv, {tmp_path}/b*.csv")
    heading = {"name": " A ".center(40, "-"), "prompt": None, "negative_prompt": None}
    assert client.get(ROUTE).json()[0] == heading
    assert len(client.get(ROUTE).json()) == 4


def test_styles_are_merged_into_both_prompts_and_their_comments_taken_out(
    styled: TestClient, engine: FakeEngine
) -> None:
    answer = draw(styled, prompt="a cat", negative_prompt="dog", styles=["oil", "sharp"])
    assert (engine.specs[0].prompt, engine.specs[0].negative_prompt) == ("oil of a cat, 4k \n", "dog, ugly")
    info = json.loads(answer.json()["info"])
    assert (info["prompt"], info["styles"]) == ("oil of a cat, 4k \n", ["oil", "sharp"])
    assert answer.json()["parameters"]["prompt"] == "a cat"
    assert "X-Darkroom-Warnings" not in answer.headers


def test_an_unknown_style_is_named_and_adds_nothing(styled: TestClient, engine: FakeEngine) -> None:
    answer = draw(styled, prompt=" a cat ", styles=["nope", "None", ""])
    assert engine.specs[0].prompt == "a cat"
    assert answer.headers["X-Darkroom-Warnings"] == "style 'nope' is unknown"


def test_styles_that_grow_without_end_are_refused(styled: TestClient) -> None:
    answer = draw(styled, prompt="a cat", styles=["double"] * 60)
    assert answer.status_code == 422
    assert answer.json()["code"] == "limit_exceeded"
