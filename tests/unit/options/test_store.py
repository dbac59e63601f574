import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from darkroom.errors import BadRequest
from darkroom.options.store import Options, OptionsNotKept
from darkroom.options.table import TABLE
from darkroom.options.values import OptionValues

WRITER = """
import sys
from pathlib import Path
from darkroom.options.store import Options
options = Options(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(1_000_000):
    options.update({"jpeg_quality": 1 + number % 100, "eta_noise_seed_delta": 1 + number % 100})
"""


def test_a_snapshot_never_changes() -> None:
    options = Options()
    before = options.snapshot()
    options.update({"jpeg_quality": 5})
    assert before.jpeg_quality == 80
    assert options.snapshot().jpeg_quality == 5


def test_options_survive_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.json"
    Options(file).update({"jpeg_quality": "70", "sd_model_checkpoint": "ä", "ESRGAN_tile": 64})
    again = Options(file).snapshot()
    assert (again.jpeg_quality, again.sd_model_checkpoint, again["ESRGAN_tile"]) == (70, "ä", 64)
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]
    assert list(json.loads(file.read_text(encoding="utf-8"))) == list(TABLE)


def test_what_the_file_holds_beside_options_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"of_an_extension": [1], "jpeg_quality": 70}')
    Options(file).update({"sd_vae": "x"})
    stored = json.loads(file.read_text())
    assert (stored["of_an_extension"], stored["jpeg_quality"], stored["sd_vae"]) == ([1], 70, "x")


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"jpeg_quality": "abc", "sd_vae": "x", "gone": 1}'])
def test_a_damaged_file_costs_only_what_is_damaged(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    values = Options(file).snapshot()
    assert values.jpeg_quality == 80
    assert values.sd_vae == ("x" if "sd_vae" in content else "Automatic")
    assert len(caplog.records) == 1


def test_a_wrong_change_changes_nothing(tmp_path: Path) -> None:
    options = Options(tmp_path / "config.json")
    with pytest.raises(BadRequest, match="jpeg_quality"):
        options.update({"sd_vae": "x", "jpeg_quality": 101})
    assert options.snapshot() == OptionValues()
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_the_old_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    options = Options(tmp_path / "config.json")
    options.update({"jpeg_quality": 70})
    before = (tmp_path / "config.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OptionsNotKept, match="full"):
        options.update({"jpeg_quality": 71})
    assert options.snapshot().jpeg_quality == 70
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"config.json": before}


def test_a_process_killed_while_it_writes_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for wait in (0.0, 0.003, 0.01):
        with subprocess.Popen([sys.executable, "-c", WRITER, file], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not file.exists():
                time.sleep(0.001)
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
        stored = json.loads(file.read_text())
        assert list(stored) == list(TABLE)
        assert stored["jpeg_quality"] == stored["eta_noise_seed_delta"]


def test_changes_from_many_threads_are_all_kept(tmp_path: Path) -> None:
    options = Options(tmp_path / "config.json")
    changes: list[dict[str, object]] = [
        {"jpeg_quality": 7},
        {"sd_vae": "x"},
        {"n_rows": 3},
        {"rho": 2},
        {"tiling": True},
    ]
    threads = [threading.Thread(target=options.update, args=(change,)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = OptionValues().merged({name: value for change in changes for name, value in change.items()})
    assert options.snapshot() == expected == Options(tmp_path / "config.json").snapshot()
