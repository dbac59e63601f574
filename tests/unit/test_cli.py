import json
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import darkroom.engine.catalogue
import darkroom.engine.local
from darkroom import __version__, cli
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine

NOT_HEAVY = (
    "import sys, darkroom.cli; print([m for m in ('torch', 'fastapi', 'numpy', 'PIL', 'uvicorn') if m in sys.modules])"
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(darkroom.engine.local, "LocalEngine", lambda *_: FakeEngine())
    monkeypatch.setattr(darkroom.engine.catalogue, "Catalogue", lambda settings: FakeCatalogue())


class FakeCatalogue(FakeEngine):
    """Its own shelf of small networks as well."""

    @property
    def small(self) -> "FakeCatalogue":
        return self


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", NOT_HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_takes_little_longer_than_what_it_is_made_of() -> None:
    """A second is another on every machine, so that theirs is the measure."""
    ours = [sys.executable, "-m", "darkroom", "--help"]
    theirs = [sys.executable, "-c", "import pydantic_settings, rich.console, rich.table, typer"]
    pairs = [(_cpu_seconds(ours), _cpu_seconds(theirs)) for _ in range(3)]
    assert min(one for one, _ in pairs) < 2.5 * min(other for _, other in pairs)


def _cpu_seconds(command: list[str]) -> float:
    """Processor time, which a busy machine does not stretch as much as the clock's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_the_version_is_told() -> None:
    assert run("--version").output.strip() == f"darkroom {__version__}"


def test_every_setting_is_a_flag_of_serve() -> None:
    output = plain(run("serve", "--help").output)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in output
        assert f"DARKROOM_{name.upper()}" in output


def test_serve_hands_its_settings_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    served: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: served.append(server.config.app()))
    done = run("serve", "--port", "0", "--exact", "--max-steps", "9", "--api-auth", "me:secret")
    assert done.exit_code == 0, done.output
    settings = served[0].state.context.settings
    assert (settings.exact, settings.max_steps) == (True, 9)
    assert settings.credentials == {"me": "secret"}


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Settings] = []
    monkeypatch.setattr(darkroom.engine.local, "LocalEngine", loaded.append)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.exit_code == 2
    assert "cannot bind" in plain(done.output)
    assert not loaded


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--device", "tpu"), "device"),
        (("--port", "70000"), "port"),
        (("--api-auth", "nocolon"), "api_auth"),
        (("--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_a_wrong_setting_is_one_line(arguments: tuple[str, str], named: str) -> None:
    done = run("serve", *arguments)
    assert done.exit_code == 2
    assert named in plain(done.output)
    assert "Traceback" not in done.output


def test_generate_writes_a_picture_with_its_parameters(tmp_path: Path) -> None:
    done = run("generate", "puppy dog", "-o", "out/dog.png", "--seed", "5", "--width", "64", "--height", "64")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "out" / "dog.png") as picture:
        assert picture.size == (64, 64)
        assert picture.info["parameters"].startswith("puppy dog\nSteps: 20, Sampler: Euler,")


def test_generate_numbers_several_pictures(tmp_path: Path) -> None:
    run("generate", "dog", "-o", "dog.jpg", "--count", "2", "--width", "64", "--height", "64")
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["dog-0.jpg", "dog-1.jpg"]
    with Image.open(tmp_path / "dog-0.jpg") as picture:
        assert picture.format == "JPEG"


def test_generate_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["darkroom", "generate", "dog", "--steps", "0"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "steps: 0 is not allowed" in plain(capsys.readouterr().err)


def test_models_lists_the_checkpoints() -> None:
    output = plain(run("models").output)
    assert "small-a.safetensors [76fc168833]" in output
    assert "sub_bar" in output


def test_options_of_the_data_folder_apply_to_generate(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.json").write_text(json.dumps({"sd_model_checkpoint": "bar"}))
    run("generate", "dog", "-o", "dog.png", "--width", "64", "--height", "64")
    with Image.open(tmp_path / "dog.png") as picture:
        assert "Model: bar" in picture.info["parameters"]


def test_small_answers_do_not_wait_for_the_packets_before() -> None:
    with (
        cli._bind("127.0.0.1", 0) as bound,
        socket.create_connection(bound.getsockname()),
        bound.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
