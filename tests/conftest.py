"""Rings: a test bears the mark of the folder it lies in. And the models of the original program's recordings."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.recordings import RECORDED, RECORDED_LARGE, NoRoomError, models_folder

# No test is timed: how long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

TESTS = Path(__file__).parent
RINGS = {"unit": "unit", "tiny": "tiny", "mini": "tiny", "gpu": "gpu", "e2e": "e2e", "browser": "e2e"}


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
def recorded_models(recordings: Path) -> Path:
    """The recordings' checkpoints, adapters, autoencoder and embeddings, in A1111's layout."""
    return _models(recordings)


@pytest.fixture(scope="session")
def larger_checkpoints() -> Path:
    """The folder of the recordings' checkpoints of Stable Diffusion 2 and XL."""
    if not RECORDED_LARGE.is_dir():
        pytest.skip(f"the recordings of the original program (../shared/reference/{RECORDED_LARGE.name}) are not here")
    return _models(RECORDED_LARGE) / "Stable-diffusion"


def _models(recordings: Path) -> Path:
    try:
        return models_folder(recordings)
    except NoRoomError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def recorded_checkpoint(recorded_models: Path) -> Path:
    """The recordings' checkpoint, its YAML beside it."""
    return recorded_models / "Stable-diffusion" / "small-a.safetensors"
