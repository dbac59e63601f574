"""Rings: a test bears the mark of the folder it lies in. And the checkpoint of the original program's recordings."""

import json
import os
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parent
RINGS = {"unit": "unit", "tiny": "tiny", "mini": "tiny", "gpu": "gpu", "e2e": "e2e"}
RECORDED = TESTS.parents[1] / "shared/reference/a1111-1.10.1"
NEEDED_BYTES = 3 * 2**30


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in RINGS:
            item.add_marker(RINGS[folder])
        if item.get_closest_marker("gpu") and not cuda_is_here():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def cuda_is_here() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of the recordings, which lie beside the repository."""
    if not RECORDED.is_dir():
        pytest.skip("the recordings of the original program (../shared/reference) are not here")
    return RECORDED


@pytest.fixture(scope="session")
def recorded_checkpoint(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The recordings' checkpoint, its YAML beside it, alone in its folder: rebuilt bit for bit by their own script.

    It has 0.7 GB. DARKROOM_REFERENCE_FILES names a folder of the script's output to take it from instead.
    """
    made = os.environ.get("DARKROOM_REFERENCE_FILES")
    folder = tmp_path_factory.mktemp("Stable-diffusion")
    target = folder / "small-a.safetensors"
    if made:
        target.symlink_to(Path(made).resolve() / "Stable-diffusion" / target.name)
    elif shutil.disk_usage(folder).free < NEEDED_BYTES or available_memory() < NEEDED_BYTES:
        pytest.skip("less than 3 GB of disk or memory left for the recordings' checkpoint")
    else:
        write_checkpoint(recordings, target)
    shutil.copy(recordings / "small.yaml", target.with_suffix(".yaml"))
    yield target
    shutil.rmtree(folder)


def available_memory() -> int:
    """Bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def write_checkpoint(recordings: Path, target: Path) -> None:
    script: dict[str, Any] = runpy.run_path(str(recordings / "make_files.py"))
    shapes = json.loads((recordings / "shapes.json").read_text())
    with np.load(recordings / "readout_a.npz") as readout:
        tensors = script["build"](shapes, 1, dict(readout))
    script["write_safetensors"](str(target), tensors)
