"""How much a job has to do."""

import numpy as np
import pytest

from darkroom.jobs.effort import DECODE_INPUTS, efforts
from darkroom.jobs.retouching import Enlargement, RetouchSpec
from darkroom.jobs.spec import InitImage
from tests.unit.engine.fake_runner import make_spec


def inputs(**fields: object) -> float:
    [one] = efforts(make_spec(**fields))  # type: ignore[arg-type]
    return one.inputs - DECODE_INPUTS


def test_a_picture_takes_its_steps_twice_with_guidance_and_again_twice_with_a_second_order_sampler() -> None:
    assert [inputs(steps=10, sampler=name) for name in ("Euler", "Heun")] == [20, 40]


def test_a_picture_that_is_painted_over_takes_a_share_of_its_steps() -> None:
    init = InitImage(pictures=(np.zeros((32, 32, 3), np.uint8),), denoising_strength=0.5)
    assert inputs(steps=10, init=init) == pytest.approx(10)


def test_a_larger_finished_picture_takes_longer() -> None:
    small, large = (
        efforts(RetouchSpec(picture=np.zeros((side, side, 3), np.uint8), work=Enlargement(upscaler="any")))
        for side in (512, 2048)
    )
    assert large[0].inputs > 4 * small[0].inputs
