"""Hires fix through real modules on tiny networks."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from darkroom.engine.local import LocalEngine
from darkroom.images.upscale import BUILT_IN
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.jobs.spec import Hires, JobSpec
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.test_engine import draw, make_settings, picture, tiny_spec


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("hires")
    write_tiny_checkpoint(folder / "models", "other", seed=2)
    engine = LocalEngine(make_settings(folder))
    yield engine
    engine.close()


def two_passes(upscaler: str = "Latent", *, seed: int = 1, **changes: object) -> JobSpec:
    hires = Hires(
        checkpoint="tiny.safetensors",
        size=(104, 83),
        crop=(2, 1),
        upscaler=upscaler,
        steps=2,
        denoising_strength=0.6,
        sampler="Euler a",
        scheduler="Karras",
        prompt="a dog",
        negative_prompt="",
        eta=1.0,
    )
    return replace(tiny_spec(seeds=(seed,)), hires=replace(hires, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("upscaler", [*LATENT_MODES, *BUILT_IN])
def test_every_upscaler_leads_to_the_cropped_size(engine: LocalEngine, upscaler: str) -> None:
    drawn = picture(draw(engine, two_passes(upscaler))[0])
    assert drawn.shape == (72, 88, 3)
    assert drawn.std() > 1, "the picture is not blank"


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_two_passes_alone_and_in_company_give_the_same_picture(engine: LocalEngine, upscaler: str) -> None:
    spec = two_passes(upscaler)
    company = [two_passes("Latent", seed=2), two_passes("Nearest", seed=3), tiny_spec("another", seeds=(4,))]
    alone, *_ = draw(engine, spec)
    crowded, *_ = draw(engine, spec, *company)
    assert np.abs(picture(alone).astype(int) - picture(crowded)).max() <= 1


def test_the_second_pass_may_have_a_checkpoint_of_its_own(engine: LocalEngine) -> None:
    same, other = draw(engine, two_passes(), two_passes(checkpoint="other.safetensors"))
    assert np.abs(picture(same).astype(int) - picture(other)).mean() > 1
