"""The kept OpenAPI document and the reference are what the routes are; everything in them says what it is."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

ROOT = Path(__file__).parents[3]
STALE = "is out of date: make api-doc"
KEPT: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    found = importlib.util.spec_from_file_location("generate_api", ROOT / "docs/generate_api.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in KEPT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema of every request that has a body of its own."""
    for name, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            kept = schema.get("$ref", "").rpartition("/")[2]
            yield name, KEPT["components"]["schemas"][kept] if kept else schema


def test_the_kept_document_is_what_the_routes_are(generator: ModuleType) -> None:
    assert json.dumps(KEPT, sort_keys=True) == json.dumps(generator.document(), sort_keys=True), f"openapi.json {STALE}"


def test_the_reference_is_what_the_routes_are(generator: ModuleType) -> None:
    written = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert written == generator.page(written), f"docs/api.md {STALE}"


def test_every_route_says_what_it_does() -> None:
    assert [name for name, operation in operations() if not operation.get("description")] == []


def test_every_parameter_says_what_it_is() -> None:
    silent = [
        f"{name} {entry['name']}"
        for name, operation in operations()
        for entry in operation.get("parameters", ())
        if entry["in"] == "query" and not entry.get("description")
    ]
    assert silent == []


def test_every_field_of_a_request_says_what_it_is() -> None:
    silent = [
        f"{name} {field}"
        for name, schema in bodies()
        for field, entry in schema.get("properties", {}).items()
        if not entry.get("description")
    ]
    assert silent == []


EXAMPLES = [
    (name.split()[1], example)
    for name, schema in bodies()
    if name.startswith(("POST /sdapi", "POST /generate"))
    for example in schema.get("examples", ())
]


def test_the_requests_that_clients_make_most_have_an_example() -> None:
    shown = {path.rpartition("/")[2] for path, _ in EXAMPLES}
    assert {"txt2img", "img2img", "extra-single-image", "extra-batch-images", "png-info", "interrogate"} <= shown


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_an_example_does_what_it_shows(client: TestClient, path: str, example: dict[str, Any]) -> None:
    answer = client.post(path, json=example)
    assert answer.status_code == 200, answer.text
    assert "X-Darkroom-Ignored" not in answer.headers
