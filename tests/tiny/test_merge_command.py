"""`darkroom models`: the list, and merges from the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from darkroom import cli
from darkroom.errors import DarkroomError

WEIGHT = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    for level, name in enumerate(("zero", "one", "two")):
        save_file({WEIGHT: torch.full((4, 4, 3, 3), float(level))}, folder / f"{name}.safetensors")
    return folder


def levels(path: Path) -> set[float]:
    """The numbers that a file's weight consists of."""
    return set(load_file(path)[WEIGHT].flatten().tolist())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["models", *arguments])


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_models_are_listed_with_and_without_saying_so(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert "zero.safetensors" in done.stdout
    assert "two.safetensors" in done.stdout


def test_settings_are_flags_of_the_group_and_of_its_commands(tmp_path: Path) -> None:
    for arguments in (("--models-dir", "elsewhere"), ("list", "--models-dir", "elsewhere")):
        output = run(*arguments).stdout
        assert "zero" not in output
        assert "darkroom-mini" in output
    done = run("--models-dir", "elsewhere", "list")
    assert done.exit_code == 2
    assert "settings go behind the command" in plain(done.output)


def test_a_merge_writes_a_file_and_tells_its_place(folder: Path) -> None:
    done = run("merge", "zero", "two", "-m", "0.25", "--name", "mix", "--dtype", "fp16")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(folder / "mix.safetensors")
    assert load_file(folder / "mix.safetensors")[WEIGHT].dtype == torch.float16
    assert levels(folder / "mix.safetensors") == {0.5}
    with safe_open(folder / "mix.safetensors", framework="pt") as file:
        recipe = json.loads(file.metadata()["sd_merge_recipe"])
    assert (recipe["multiplier"], recipe["save_as_half"], recipe["custom_name"]) == (0.25, True, "mix")


def test_every_method_can_be_asked_for(folder: Path) -> None:
    run("merge", "one", "two", "zero", "--method", "add difference", "--multiplier", "0.5", "--no-metadata")
    assert levels(folder / "one + 0.5(two - zero).safetensors") == {2.0}
    run("merge", "one", "--method", "No interpolation", "--name", "copy")
    assert levels(folder / "copy.safetensors") == {1.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("zero",), "b: '' is not allowed"),
        (("nobody", "one"), "a: 'nobody' is not allowed"),
        (("zero", "one", "--method", "mean"), "method: 'mean' is not allowed"),
        (("zero", "one", "--name", "two"), "overwrite"),
        (("zero", "one", "--discard", "("), "discard: '(' is not allowed"),
        (("zero", "one", "--block-weights", "1,1,1"), "block_weights: '3 numbers' is not allowed"),
        (("zero", "one", "--block-weights", "1,x"), "block_weights"),
    ],
)
def test_what_is_not_allowed_is_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    before = sorted(folder.iterdir())
    done = run("merge", *arguments)
    assert done.exit_code != 0
    told = str(done.exception) if isinstance(done.exception, DarkroomError) else plain(done.output)
    assert said in told
    assert sorted(folder.iterdir()) == before
