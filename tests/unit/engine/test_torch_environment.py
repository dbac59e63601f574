"""What torch finds in the environment."""

import os

import pytest

from darkroom.engine.torch_environment import DEFAULTS, prepare_environment


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_engine_has_its_defaults_unless_the_environment_says_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "mine")
    prepare_environment()
    assert os.environ[name] == "mine"
    monkeypatch.delenv(name)
    prepare_environment()
    assert os.environ[name] == DEFAULTS[name]
