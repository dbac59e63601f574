"""DeepCache through the whole engine: several jobs at once, each with what its own network found."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darkroom.engine.local import LocalEngine
from darkroom.jobs.spec import GuidanceOptions, JobSpec
from darkroom.settings import Settings
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.drawing import draw
from tests.unit.engine.fake_runner import make_spec


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    write_tiny_checkpoint(tmp_path / "models", "tiny", seed=1)
    engine = LocalEngine(Settings(data_dir=tmp_path, ckpt_dir=tmp_path / "models", device="cpu", precision="fp32"))
    yield engine
    engine.close()


def spec(interval: int, *, seed: int = 1, steps: int = 6, sampler: str = "Euler") -> JobSpec:
    made = make_spec("a cat", size=64, steps=steps)
    guidance = GuidanceOptions(deep_cache=interval)
    return replace(made, checkpoint="tiny.safetensors", sampler=sampler, seeds=(seed,), guidance=guidance)


def test_a_picture_is_the_same_alone_and_among_jobs_that_skip_at_other_steps(engine: LocalEngine) -> None:
    asked = spec(3)
    [alone] = draw(engine, asked)
    first, second = (spec(interval, seed=interval, steps=4, sampler="Heun") for interval in (1, 2))
    among = draw(engine, first, asked, second)[1]
    assert np.abs(alone.astype(int) - among.astype(int)).max() <= 1


def test_skipping_changes_the_picture(engine: LocalEngine) -> None:
    plain, skipping = draw(engine, spec(1), spec(2))
    assert not np.array_equal(plain, skipping)
