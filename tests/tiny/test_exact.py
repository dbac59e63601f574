"""Exact mode on the embedded model: batches are shared where our own kernels do the work, and bytes stay the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darkroom.engine.local import LocalEngine
from darkroom.jobs.spec import JobSpec
from darkroom.nets.kernels import find_kernels
from darkroom.settings import Settings
from tests.tiny.drawing import draw
from tests.unit.engine.fake_runner import make_spec

OTHERS = 7


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    if find_kernels(tmp_path / "kernels").product is None:
        pytest.skip("no AMX or no C compiler here")
    engine = LocalEngine(Settings(data_dir=tmp_path, device="cpu", precision="bf16", exact=True))
    yield engine
    engine.close()


def spec(engine: LocalEngine, prompt: str, seed: int, **changes: object) -> JobSpec:
    [checkpoint] = engine.checkpoints()
    found = make_spec(prompt, seeds=[seed], size=128, steps=6, sampler="DPM++ 2M")
    return replace(found, checkpoint=checkpoint.key, traits=checkpoint.traits, **changes)  # type: ignore[arg-type]


def largest_batch(engine: LocalEngine) -> float:
    """The bound of the largest batch of evaluations, in network inputs."""
    rows = engine.stats().rows["Denoise"]
    return max(bound for bound, count in zip(rows.bounds, rows.counts, strict=False) if count)


def test_batches_are_shared_and_the_bytes_are_the_same(engine: LocalEngine) -> None:
    one = spec(engine, "a red apple", 5)
    [alone] = draw(engine, one)
    together = draw(engine, one, *(spec(engine, f"another {i}", i) for i in range(OTHERS)))
    np.testing.assert_array_equal(together[0], alone)
    assert alone.std() > 1, "the picture is not blank"
    assert largest_batch(engine) > 2


def test_merged_tokens_are_answered_alone(engine: LocalEngine) -> None:
    draw(engine, *(spec(engine, f"another {i}", i, token_merging=0.5) for i in range(3)))
    assert largest_batch(engine) == 2
