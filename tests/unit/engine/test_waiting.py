"""How torch's threads wait for each other."""

import os

import pytest

from darkroom.engine.waiting import wait_asleep


def test_threads_sleep_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_asleep()
    assert policy() == "active"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_asleep()
    assert policy() == "passive"


def policy() -> str | None:
    return os.environ.get("OMP_WAIT_POLICY")
