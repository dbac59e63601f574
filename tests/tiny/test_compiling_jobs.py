"""An engine that compiles draws the same pictures, and does not where it must not."""

import logging
from pathlib import Path

import pytest
import torch

from darkroom.engine.catalogue import Catalogue
from darkroom.engine.runner import NetworkRunner, find_compiler
from darkroom.settings import Settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "dtype", "turns", "reason"),
    [
        ({"exact": True}, torch.float32, False, "exact"),
        ({}, torch.float32, True, "take turns"),
        ({}, torch.bfloat16, False, "bf16"),
    ],
)
def test_nothing_is_compiled_where_it_must_not_be_and_the_log_says_why(
    tmp_path: Path, options: dict[str, bool], dtype: torch.dtype, turns: bool, reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = Settings(compile=True, data_dir=tmp_path, **options)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert find_compiler(settings, CPU, {dtype}, turns=turns) is None
    assert reason in caplog.text


def test_nothing_is_compiled_unless_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_compiler(Settings(data_dir=tmp_path), CPU, {torch.float32}, turns=False) is None
    assert not caplog.messages


def test_compiled_networks_have_costs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    runners = [
        NetworkRunner(settings, Catalogue(settings))
        for settings in (
            Settings(data_dir=tmp_path, models_dir=tmp_path, precision="fp32", compile=compiles)
            for compiles in (False, True)
        )
    ]
    assert len({runner.machine for runner in runners}) == 2
    assert not any(runner.is_compiling for runner in runners)
