"""Costs of batches on disk."""

import logging
from pathlib import Path

import pytest

from darkroom.engine import knees
from darkroom.engine.costs import Kind

TABLES = {Kind("denoise", "some.safetensors", 4096): {2: 0.5, 4: 0.25}, Kind("EncodeText", "other", 0): {1: 0.01}}


def test_what_was_kept_is_read_by_the_same_machine_alone(tmp_path: Path) -> None:
    file = tmp_path / "data" / "costs.json"
    knees.write(file, "this one", TABLES)
    assert knees.read(file, "this one") == TABLES
    assert knees.read(file, "another") == {}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine": "m"}', '{"machine": "m", "costs": [["a"]]}', "{"])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "costs.json"
    assert knees.read(file, "m") == {}
    file.write_text(content)
    assert knees.read(file, "m") == {}


def test_a_disk_that_cannot_be_written_to_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a file").write_text("")
    with caplog.at_level(logging.INFO):
        knees.write(tmp_path / "a file" / "costs.json", "m", TABLES)
    assert "is not kept" in caplog.text
