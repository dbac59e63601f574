"""Rings: a test bears the mark of the folder it lies in (`unit`, `tiny`, `gpu`, `e2e`)."""

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is not a bug: no example has a deadline.
settings.register_profile("darkroom", deadline=None)
settings.load_profile("darkroom")

TESTS = Path(__file__).parent
RINGS = frozenset({"unit", "tiny", "gpu", "e2e"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in RINGS:
            item.add_marker(folder)
        if item.get_closest_marker("gpu") and not cuda_is_here():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def cuda_is_here() -> bool:
    import torch

    return torch.cuda.is_available()
