"""What options there are, for whoever shows them to people."""

from typing import Any

from starlette.testclient import TestClient

from darkroom.options.table import SECTIONS, TABLE
from tests.unit.api.conftest import Serve


def options_of(client: TestClient) -> dict[str, dict[str, Any]]:
    return {option["name"]: option for section in client.get("/options").json() for option in section["options"]}


def test_every_option_is_described_in_its_section(client: TestClient) -> None:
    sections = client.get("/options").json()
    assert [section["title"] for section in sections] == list(SECTIONS)
    described = options_of(client)
    assert list(described) == list(TABLE)
    assert all(option["about"] and option["allowed"] for option in described.values())


def test_defaults_are_those_of_a_fresh_server(client: TestClient) -> None:
    fresh = client.get("/sdapi/v1/options").json()
    own = {"sd_model_checkpoint", "sd_checkpoint_hash"}
    described = options_of(client)
    assert {name: described[name]["default"] for name in fresh if name not in own} == {
        name: value for name, value in fresh.items() if name not in own
    }


def test_what_an_option_may_be_is_told(client: TestClient) -> None:
    described = options_of(client)
    assert described["samples_format"]["choices"] == ["png", "jpg", "jpeg", "webp", "avif", "gif"]
    assert (described["jpeg_quality"]["low"], described["jpeg_quality"]["high"]) == (1, 100)
    assert described["dat_enabled_models"]["choices"] == ["DAT x2", "DAT x3", "DAT x4"]
    assert (described["font"]["steers"], described["grid_save"]["steers"]) == (False, True)
    assert described["api_enable_requests"]["fixed"]


def test_what_is_frozen_says_so(serve: Serve) -> None:
    assert {option["frozen"] for option in options_of(serve()).values()} == {None}
    some = options_of(serve(freeze_settings_in_sections="sd", freeze_specific_settings="jpeg_quality"))
    frozen = {name for name, option in some.items() if option["frozen"]}
    assert {"jpeg_quality", "randn_source", "enable_prompt_comments"} <= frozen
    assert "samples_format" not in frozen
    assert all(option["frozen"] for option in options_of(serve(freeze_settings=True)).values())
