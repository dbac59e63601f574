"""The worked example, installed into a folder of its own, and packages that are no good extension."""

import json
import logging
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.extensions import GROUP, load
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.conftest import from_base64
from tests.unit.api.fake_engine import FakeEngine

EXAMPLE = Path(__file__).parents[3] / "examples/extension"
REQUEST = {"prompt": "a cat", "steps": 3, "width": 64, "height": 64, "seed": 5}
STRIP = {**REQUEST, "script_name": "test strip", "script_args": [2, 4, 3]}
HEAD = "from darkroom.extensions import Extension\n"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package where Python looks, with what an installer writes beside it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(name: str, entry: str, version: str = "1.0.0", source: str | None = None) -> None:
        package = entry.split(":", maxsplit=1)[0]
        monkeypatch.delitem(sys.modules, package, raising=False)
        if source is None:
            shutil.copytree(EXAMPLE / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (site / f"{package}.py").write_text(source)
        notes = site / f"{package}-{version}.dist-info"
        notes.mkdir()
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (notes / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {entry}\n")

    return put


@pytest.fixture
def example(install: Install) -> None:
    """The example as its own pyproject.toml has it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    [(name, entry)] = project["entry-points"][GROUP].items()
    install(name, entry, project["version"])


def serve(tmp_path: Path, **settings: object) -> TestClient:
    chosen = Settings.model_validate({"data_dir": tmp_path, **settings})
    installed = load(chosen.extensions_left_out, enabled=chosen.extensions)
    return TestClient(create_app(chosen, FakeEngine(), Options(), installed))


@pytest.mark.usefixtures("example")
def test_the_example_brings_a_script_a_route_and_itself_into_the_lists(tmp_path: Path) -> None:
    with serve(tmp_path) as client:
        [listed] = client.get("/sdapi/v1/extensions").json()
        original = ["name", "remote", "branch", "commit_hash", "version", "commit_date", "enabled"]
        assert list(listed) == [*original, "scripts", "routes"]
        assert (listed["scripts"], listed["routes"]) == (["Test strip"], ["/ext/test-strip/scales"])
        assert (listed["name"], listed["version"], listed["enabled"]) == ("test-strip", "1.0.0", True)
        scripts = client.get("/sdapi/v1/scripts").json()
        assert "test strip" in scripts["txt2img"]
        assert "test strip" in scripts["img2img"]
        described = {entry["name"]: entry for entry in client.get("/sdapi/v1/script-info").json()}
        assert [entry["value"] for entry in described["test strip"]["args"]] == [2.0, 10.0, 5]
        asked = {"lowest": 2, "highest": 4, "count": 3}
        assert client.get("/ext/test-strip/scales", params=asked).json() == [2.0, 3.0, 4.0]
        assert "/ext/test-strip/scales" in client.get("/openapi.json").json()["paths"]


@pytest.mark.usefixtures("example")
def test_the_script_of_the_example_draws_a_strip(tmp_path: Path) -> None:
    with serve(tmp_path) as client:
        answer = client.post("/sdapi/v1/txt2img", json=STRIP)
        assert answer.status_code == 200, answer.text
        assert [from_base64(image).size for image in answer.json()["images"]] == [(192, 64), *[(64, 64)] * 3]
        texts = json.loads(answer.json()["info"])["infotexts"]
        assert ["CFG scale: 3" in text for text in texts] == [False, False, True, False]
        assert client.post("/sdapi/v1/txt2img", json={**STRIP, "script_args": [2, 4, 1]}).status_code == 422


@pytest.mark.usefixtures("example")
def test_routes_of_extensions_ask_for_the_same_password(tmp_path: Path) -> None:
    with serve(tmp_path, api_auth="me:secret") as client:
        assert client.get("/ext/test-strip/scales").status_code == 401
        assert client.get("/ext/test-strip/scales", auth=("me", "secret")).status_code == 200


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("settings", [{"extensions": False}, {"without_extensions": "other, test-strip"}])
def test_an_extension_that_is_switched_off_is_listed_and_never_imported(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    with serve(tmp_path, **settings) as client:
        [listed] = client.get("/sdapi/v1/extensions").json()
        assert (listed["name"], listed["version"], listed["enabled"]) == ("test-strip", "1.0.0", False)
        assert client.get("/ext/test-strip/scales").status_code == 404
        assert "test strip" not in client.get("/sdapi/v1/scripts").json()["txt2img"]
    assert "darkroom_test_strip" not in sys.modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('broken at import')", "broken at import"),
        ("raise SystemExit(3)", "cannot be loaded"),
        ("other = 1", "cannot be loaded"),
        ("extension = 1", "is a int, not a darkroom.extensions.Extension"),
        (HEAD + "extension = Extension(name='else', version='1')", "must have the same name"),
        (
            HEAD + "from dataclasses import replace\nfrom darkroom.scripts.loopback import SCRIPT\n"
            "extension = Extension(name='bad', version='1', scripts=(replace(SCRIPT, title='X/Y/Z PLOT'),))",
            "'X/Y/Z PLOT' of a script is taken",
        ),
        (
            HEAD + "from darkroom.scripts.plan import Script\n"
            "extension = Extension(name='bad', version='1', scripts=(Script(title='New', arguments=int, plan=print),))",
            "cannot be loaded",
        ),
    ],
)
@pytest.mark.usefixtures("example")
def test_a_broken_extension_is_named_in_the_log_and_the_others_are_served(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture, source: str, reason: str
) -> None:
    install("bad", "bad_extension:extension", source=source)
    with caplog.at_level(logging.ERROR), serve(tmp_path) as client:
        listed = client.get("/sdapi/v1/extensions").json()
        assert [(one["name"], one["enabled"]) for one in listed] == [("bad", False), ("test-strip", True)]
        assert client.get("/health").status_code == 200
        assert client.get("/sdapi/v1/script-info").status_code == 200
        facts = client.get("/internal/sysinfo").json()
        assert [one["name"] for one in facts["Extensions"]] == ["test-strip"]
        assert [one["name"] for one in facts["Inactive extensions"]] == ["bad"]
    assert "Extension bad is left out" in caplog.text
    assert reason in caplog.text


def test_of_two_extensions_with_one_name_the_second_is_refused(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("first_one", "second_one"):
        install("twin", f"{module}:extension", source=HEAD + f"extension = Extension(name='twin', version='{module}')")
    first, second = load()
    assert (first.version, first.extension is None, second.extension) == ("first_one", False, None)
    assert "the name 'twin' is taken by another package" in caplog.text
