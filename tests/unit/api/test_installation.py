"""The routes that say what there is, and those that answer for what there is not."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from darkroom.api.diagnosis import without_secrets
from darkroom.engine.client import DeviceMemory
from tests.unit.api.conftest import Serve, noise
from tests.unit.api.fake_engine import FakeEngine


def test_flags_have_all_names_and_never_a_password(serve: Serve, recordings: Path) -> None:
    client = serve(api_auth="user:secret", port=1234, precision="fp32")
    flags = client.get("/sdapi/v1/cmd-flags", auth=("user", "secret")).json()
    recorded = json.loads((recordings / "cases/get_cmd_flags.response.json").read_text())["body"]
    assert list(flags) == list(recorded)
    assert (flags["port"], flags["no_half"], flags["api_auth"]) == ("1234", True, None)
    assert "secret" not in json.dumps(flags)
    kinds = {name for name, value in flags.items() if type(value) is not type(recorded[name])}
    assert all(flags[name] is None or recorded[name] is None for name in kinds)


def test_restorers_and_published_models_are_named(client: TestClient) -> None:
    assert client.get("/sdapi/v1/face-restorers").json() == [
        {"name": "CodeFormer", "cmd_dir": None},
        {"name": "GFPGAN", "cmd_dir": None},
    ]
    models = client.get("/sdapi/v1/realesrgan-models").json()
    assert len(models) == 6
    assert models[-1]["scale"] == 2
    assert client.get("/sdapi/v1/extensions").json() == []


def test_memory_is_told_in_bytes(client: TestClient, engine: FakeEngine) -> None:
    memory = client.get("/sdapi/v1/memory").json()
    assert memory["cuda"] == {"error": "unavailable"}
    assert memory["ram"]["total"] == memory["ram"]["free"] + memory["ram"]["used"]
    pair = (1, 2)
    engine.device_memory = DeviceMemory(
        free=10, total=30, active=pair, allocated=pair, reserved=pair, inactive=pair, retries=0, out_of_memory=4
    )
    cuda = client.get("/sdapi/v1/memory").json()["cuda"]
    assert cuda["system"] == {"free": 10, "used": 20, "total": 30}
    assert cuda["active"] == {"current": 1, "peak": 2}
    assert cuda["events"] == {"retries": 0, "oom": 4}


def test_models_are_dropped_and_loaded_on_demand(client: TestClient, engine: FakeEngine) -> None:
    assert client.post("/sdapi/v1/reload-checkpoint", content=b'""').json() == {}
    assert engine.loaded == ["small-a"]
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    assert engine.loaded == []
    engine.models.clear()
    assert client.post("/sdapi/v1/reload-checkpoint").status_code == 503


def test_the_process_ends_only_where_that_is_allowed(serve: Serve) -> None:
    client = serve()
    for name in ("kill", "restart", "stop"):
        assert client.post(f"/sdapi/v1/server-{name}").status_code == 404
    answer = serve(api_server_stop=True).post("/sdapi/v1/server-restart")
    assert (answer.status_code, answer.content) == (501, b"")


@pytest.mark.parametrize("what", ["create/embedding", "create/hypernetwork", "train/embedding", "train/hypernetwork"])
def test_training_says_that_it_cannot(client: TestClient, what: str) -> None:
    answer = client.post(f"/sdapi/v1/{what}", json={"name": "x"})
    assert answer.status_code == 200
    assert re.fullmatch(r"(create|train) \w+ error: .+", answer.json()["info"])


def test_every_option_has_a_label(client: TestClient) -> None:
    hints = client.get("/internal/quicksettings-hint").json()
    assert {hint["name"] for hint in hints} == set(client.get("/sdapi/v1/options").json())
    assert all(hint["label"] for hint in hints)
    assert client.get("/internal/profile-startup").json() is None


def test_a_diagnosis_shows_no_secret_and_carries_its_checksum(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_AUTH", "user:secret")
    client = serve(api_auth="user:secret")
    assert client.get("/internal/sysinfo").status_code == 401
    answer = client.get("/internal/sysinfo", auth=("user", "secret"))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith('inline; filename="sysinfo-')
    assert "secret" not in answer.text
    found = json.loads(answer.text)["Checksum"]
    assert sha256(answer.text.replace(found, "DARKROOM").encode()).hexdigest() == found
    download = client.get("/internal/sysinfo-download", auth=("user", "secret"))
    assert download.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("--api-auth a:b --port 1", "--api-auth <hidden> --port 1"),
        ("--gradio-auth=c:d", "--gradio-auth=<hidden>"),
        ("--hub-token e", "--hub-token <hidden>"),
        ("--insecure-no-auth --port 1", "--insecure-no-auth --port 1"),
    ],
)
def test_what_follows_a_flag_about_passwords_is_hidden(arguments: str, shown: str) -> None:
    assert without_secrets(["serve", *arguments.split()]) == ["serve", *shown.split()]


def test_previews_come_out_of_the_folders_of_models_alone(serve: Serve, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    noise(8, 8).save(models / "a.preview.png")
    noise(8, 8).save(tmp_path / "private.png")
    (models / "link.png").symlink_to(tmp_path / "private.png")
    (models / "a.txt").write_text("no picture")
    client = serve(models_dir=models)

    def status(path: object) -> int:
        code: int = client.get("/sd_extra_networks/thumb", params={"filename": str(path)}).status_code
        return code

    assert status(models / "a.preview.png") == 200
    for path in ("", "/etc/passwd", tmp_path / "private.png", models / "../private.png", models / "link.png"):
        assert status(path) == 404
    assert status(models / "a.txt") == 404
    assert status("x" * 5000) == 404
    assert status("a\0b.png") == 404


def test_cards_of_pages_that_nobody_rendered_do_not_exist(client: TestClient) -> None:
    assert client.get("/sd_extra_networks/cover-images").status_code == 404
    assert client.get("/sd_extra_networks/metadata").json() == {}
    answer = client.get("/sd_extra_networks/get-single-card", params={"page": "lorra"})
    assert answer.status_code == 404
    assert "lora" in answer.json()["detail"]
