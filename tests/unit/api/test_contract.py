"""Nothing of the original's API is missing: routes, fields with their defaults, keys of `info`, options, flags."""

import json
from collections.abc import Iterator
from typing import cast

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.api.models import Generation, Img2Img, Txt2Img
from darkroom.engine.client import Engine
from darkroom.options.store import Options
from darkroom.options.table import TABLE
from darkroom.settings import Settings
from tests.unit.api.contract import DESCRIPTION, kept, read_contract

CONTRACT = kept()
SHARED = 34
"""So many fields of txt2img come first in img2img too."""

TXT2IMG = CONTRACT["txt2img"]
IMG2IMG = [*TXT2IMG[:SHARED], *CONTRACT["img2img"]]
OWN_DEFAULT = {"denoising_strength": ("0.75", "no")}
"""Fields that img2img shares but for their default."""


def field_cases() -> Iterator[tuple[type[Generation], str, str, str]]:
    for model, fields in ((Txt2Img, TXT2IMG), (Img2Img, IMG2IMG)):
        for name, _, default, null in fields:
            own = OWN_DEFAULT.get(name) if model is Img2Img else None
            yield (model, name, *(own or (default, null)))


@pytest.mark.skipif(
    not DESCRIPTION.is_file(), reason="the description of the original's API is not beside this checkout"
)
def test_the_kept_names_are_those_of_the_description() -> None:
    assert kept() == read_contract(DESCRIPTION.read_text(encoding="utf-8"))


def test_the_contract_has_its_size() -> None:
    sizes = {name: len(rows) for name, rows in CONTRACT.items()}
    assert sizes == {"routes": 52, "txt2img": 55, "img2img": 23, "info": 32, "options": 329, "flags": 126}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings(api_server_stop=True), cast("Engine", object()), Options())


@pytest.mark.parametrize(("method", "path"), CONTRACT["routes"], ids=[" ".join(row) for row in CONTRACT["routes"]])
def test_a_route_exists(app: FastAPI, method: str, path: str) -> None:
    assert method.lower() in app.openapi()["paths"].get(path, {})


@pytest.mark.parametrize(("model", "fields"), [(Txt2Img, TXT2IMG), (Img2Img, IMG2IMG)])
def test_a_request_has_the_fields_in_their_order(model: type[Generation], fields: list[list[str]]) -> None:
    shared = [name for name, field in model.model_fields.items() if not field.exclude]
    assert shared == [name for name, *_ in fields]


@pytest.mark.parametrize(("model", "name", "default", "null"), list(field_cases()))
def test_a_field_has_its_default_and_takes_null_or_not(
    model: type[Generation], name: str, default: str, null: str
) -> None:
    wanted = json.loads(default)
    found = model.model_fields[name].default
    assert (found, isinstance(found, bool)) == (wanted, isinstance(wanted, bool))
    if null == "yes":
        assert getattr(model.model_validate({name: None}), name) is None
    else:
        with pytest.raises(ValidationError, match="none is not an allowed value"):
            model.model_validate({name: None})


@pytest.mark.parametrize(("route", "fields"), [("txt2img", TXT2IMG), ("img2img", IMG2IMG)])
def test_an_answer_repeats_the_request_and_has_every_key_of_info(
    client: TestClient, route: str, fields: list[list[str]]
) -> None:
    models: dict[str, type[Generation]] = {"txt2img": Txt2Img, "img2img": Img2Img}
    (body,) = models[route].model_json_schema()["examples"]
    answer = client.post(f"/sdapi/v1/{route}", json=body).json()
    assert list(answer) == ["images", "parameters", "info"]
    assert list(answer["parameters"]) == [name for name, *_ in fields]
    assert list(json.loads(answer["info"])) == [name for (name,) in CONTRACT["info"]]


@pytest.mark.parametrize("field", ["subseed_strength", "cfg_scale", "eta", "s_churn", "s_noise"])
@pytest.mark.parametrize("value", [1e111, -1e111])
def test_a_strength_that_no_network_can_answer_is_refused(client: TestClient, field: str, value: float) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={field: value})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", field])


def test_every_option_exists_and_is_documented(client: TestClient) -> None:
    wanted = [name for name, _ in CONTRACT["options"]]
    assert [name for name in wanted if name not in TABLE] == []
    assert [name for name, option in TABLE.items() if not option.about] == []
    answered = client.get("/sdapi/v1/options").json()
    assert [name for name in wanted if name not in answered] == []


def test_every_flag_is_told(client: TestClient) -> None:
    answered = client.get("/sdapi/v1/cmd-flags").json()
    assert [name for (name,) in CONTRACT["flags"] if name not in answered] == []
