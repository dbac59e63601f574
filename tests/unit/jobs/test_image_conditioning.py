"""What checkpoints see beside the latent."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.jobs.image_conditioning import as_pixels, blank_conditioning, picture_conditioning
from darkroom.jobs.ops import EncodeImage, EstimateDepth
from darkroom.jobs.spec import Conditioning, Model, Traits

CPU = torch.device("cpu")


def model(conditioning: Conditioning) -> Model:
    return Model(checkpoint="x", traits=Traits(conditioning=conditioning))


def encoded(op: EncodeImage) -> Tensor:
    """An autoencoder in closed form: the mean of every 8x8 pixels, and a fourth channel of ones."""
    assert isinstance(op.picture, Tensor)
    small = torch.nn.functional.avg_pool2d(op.picture, 8)
    scale = 0.5 if op.scaled else 1.0
    return torch.cat([small, torch.ones_like(small[:1])]) * scale


def drive(asking: Generator[Any, Any, Tensor | None]) -> Tensor | None:
    answer = None
    try:
        while True:
            op = asking.send(answer)
            answer = op.picture[:1] * 3 + 5 if isinstance(op, EstimateDepth) else encoded(op)
    except StopIteration as end:
        result: Tensor | None = end.value
        return result


def pixels() -> Tensor:
    return torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_plain_checkpoint_sees_nothing_and_asks_nothing() -> None:
    assert drive(blank_conditioning(model("none"), (32, 48), CPU)) is None
    assert drive(picture_conditioning(model("none"), pixels())) is None


def test_out_of_nothing_an_inpainting_checkpoint_sees_grey_under_a_mask_of_ones() -> None:
    image = drive(blank_conditioning(model("inpaint"), (32, 48), CPU))
    assert image is not None
    assert image.shape == (5, 4, 6)
    assert (image[0] == 1).all()
    assert not image[1:4].any()


@pytest.mark.parametrize("conditioning", ["edit", "depth"])
def test_checkpoints_that_need_a_picture_refuse_to_draw_out_of_nothing(conditioning: Conditioning) -> None:
    with pytest.raises(BadRequest, match="img2img"):
        drive(blank_conditioning(model(conditioning), (32, 48), CPU))


def test_an_inpainting_checkpoint_sees_the_mask_first_and_then_the_picture_without_what_is_under_it() -> None:
    mask = torch.zeros(32, 48)
    mask[:, 24:] = 1
    image = drive(picture_conditioning(model("inpaint"), pixels(), mask))
    assert image is not None
    assert not image[0, :, :3].any()
    assert (image[0, :, 3:] == 1).all()
    assert not image[1:4, :, 3:].any()
    assert torch.allclose(image[1:4, :, :3], torch.nn.functional.avg_pool2d(pixels(), 8)[..., :3] / 2)


def test_the_weight_says_how_much_of_the_hidden_part_is_seen() -> None:
    mask = torch.ones(32, 48)
    seen = [drive(picture_conditioning(model("inpaint"), pixels(), mask, weight)) for weight in (0.0, 0.5, 1.0)]
    whole, half, none = (image for image in seen if image is not None)
    assert torch.allclose(half[1:4], whole[1:4] / 2, atol=1e-6)
    assert not none[1:4].any()


def test_without_a_mask_all_is_repainted() -> None:
    image = drive(picture_conditioning(model("inpaint"), pixels()))
    assert image is not None
    assert (image[0] == 1).all()
    assert not image[1:4].any()


def test_the_mask_takes_the_nearest_level_at_the_latents_size() -> None:
    mask = torch.zeros(32, 48)
    mask[0, 0] = 0.4
    image = drive(picture_conditioning(model("inpaint"), pixels(), mask))
    assert image is not None
    assert image[0, 0, 0] == pytest.approx(0.4)
    assert image[0].sum() == pytest.approx(0.4)


def test_an_editing_checkpoint_sees_the_autoencoders_own_unscaled_latent() -> None:
    image = drive(picture_conditioning(model("edit"), pixels()))
    assert image is not None
    assert image.shape == (4, 4, 6)
    assert (image[3] == 1).all()


def test_a_depth_checkpoint_sees_one_channel_between_minus_one_and_one() -> None:
    image = drive(picture_conditioning(model("depth"), pixels()))
    assert image is not None
    assert image.shape == (1, 4, 6)
    assert image.min() == pytest.approx(-1)
    assert image.max() == pytest.approx(1)


def test_a_picture_without_depth_is_no_division_by_zero() -> None:
    image = drive(picture_conditioning(model("depth"), torch.zeros(3, 32, 48)))
    assert image is not None
    assert image.isfinite().all()


def test_pixels_run_from_minus_one_to_one() -> None:
    picture = np.array([[[0, 255, 51]]], dtype=np.uint8)
    assert as_pixels(picture, CPU)[:, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])
