from pathlib import Path

from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import SHA, FakeEngine


def test_checkpoints_are_listed_as_clients_know_them(client: TestClient) -> None:
    assert client.get("/sdapi/v1/sd-models").json() == [
        {
            "title": "small-a.safetensors [76fc168833]",
            "model_name": "small-a",
            "hash": "76fc168833",
            "sha256": SHA,
            "filename": "/models/small-a.safetensors",
            "config": None,
        },
        {
            "title": "sub/bar.safetensors",
            "model_name": "sub_bar",
            "hash": None,
            "sha256": None,
            "filename": "/models/sub/bar.safetensors",
            "config": None,
        },
    ]


def test_refreshing_looks_again_and_answers_null(client: TestClient, engine: FakeEngine) -> None:
    answer = client.post("/sdapi/v1/refresh-checkpoints")
    assert answer.json() is None
    assert engine.refreshed == 1


def test_hidden_folders_are_looked_into_as_the_option_says(client: TestClient, engine: FakeEngine) -> None:
    for route in ("refresh-checkpoints", "refresh-loras"):
        for hidden in (False, True):
            client.post("/sdapi/v1/options", json={"list_hidden_files": hidden})
            client.post(f"/sdapi/v1/{route}")
            assert engine.hidden is hidden


def test_samplers_have_text_options(client: TestClient) -> None:
    samplers = {sampler["name"]: sampler for sampler in client.get("/sdapi/v1/samplers").json()}
    assert {"Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "DDIM"} <= set(samplers)
    assert samplers["DPM++ 2M"] == {
        "name": "DPM++ 2M",
        "aliases": ["k_dpmpp_2m"],
        "options": {"scheduler": "karras"},
    }
    assert samplers["Euler a"]["options"] == {"uses_ensd": "True"}


def test_schedulers_have_null_for_no_aliases(client: TestClient) -> None:
    schedulers = {scheduler["name"]: scheduler for scheduler in client.get("/sdapi/v1/schedulers").json()}
    assert schedulers["karras"] == {
        "name": "karras",
        "label": "Karras",
        "aliases": None,
        "default_rho": 7.0,
        "need_inner_model": False,
    }
    assert schedulers["sgm_uniform"]["aliases"] == ["SGMUniform"]


def test_the_server_lives_before_it_is_ready(serve: Serve, engine: FakeEngine) -> None:
    engine.is_ready = False
    client = serve()
    assert client.get("/health").json()["status"] == "ok"
    assert (client.get("/ready").status_code, client.get("/ready").json()) == (503, {"ready": False})
    engine.is_ready = True
    assert (client.get("/ready").status_code, client.get("/ready").json()) == (200, {"ready": True})


def test_the_engine_is_closed_when_the_server_stops(tmp_path: Path) -> None:
    engine = FakeEngine()
    with TestClient(create_app(Settings(data_dir=tmp_path), engine, Options())):
        assert not engine.closed
    assert engine.closed


def test_the_documentation_knows_every_field(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    own = {"distilled_cfg_scale"}
    assert len(schemas["Txt2Img"]["properties"].keys() - own) == 55
    assert len(schemas["Img2Img"]["properties"].keys() - own) == 57
    operation = document["paths"]["/sdapi/v1/txt2img"]["post"]["operationId"]
    assert operation == "text2imgapi_sdapi_v1_txt2img_post"
    assert client.get("/docs").status_code == 200


def test_upscalers_and_latent_modes_are_listed_as_clients_know_them(client: TestClient) -> None:
    upscalers = client.get("/sdapi/v1/upscalers").json()
    assert [upscaler["name"] for upscaler in upscalers] == ["None", "Lanczos", "Nearest"]
    assert upscalers[0] == {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
    assert client.get("/sdapi/v1/latent-upscale-modes").json() == [
        {"name": "Latent"},
        {"name": "Latent (antialiased)"},
        {"name": "Latent (bicubic)"},
        {"name": "Latent (bicubic antialiased)"},
        {"name": "Latent (nearest)"},
        {"name": "Latent (nearest-exact)"},
    ]
