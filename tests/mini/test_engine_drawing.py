"""The report's pictures come out of the server's engine: each its own request's, and a mask keeps what it covers."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from darkroom.mini import export
from darkroom.mini.drawing import DrawRequest
from darkroom.mini.engine_drawing import Darkroom, darkroom, fields_of


@pytest.fixture(scope="module")
def house() -> Iterator[Darkroom]:
    with darkroom(export.WEIGHTS) as opened:
        yield opened


def test_every_request_gets_the_picture_it_asked_for(house: Darkroom) -> None:
    wanted = [DrawRequest(prompt="apple", seed=seed, pixels=size, steps=2) for seed, size in ((1, 64), (2, 128))]
    assert [picture.size for picture in house.draw(wanted)] == [(64, 64), (128, 128)]


def test_a_picture_too_large_to_lay_out_has_the_size_that_was_asked_for(house: Darkroom) -> None:
    [picture] = house.draw([DrawRequest(prompt="apple", seed=1, pixels=256, steps=2)])
    assert picture.size == (256, 256)


def test_a_repainted_picture_changes_where_the_mask_is_white_alone(house: Darkroom) -> None:
    before = Image.new("RGB", (64, 64), (40, 90, 160))
    mask = Image.new("L", before.size, 0)
    mask.paste(255, (32, 0, 64, 64))
    after = house.repaint(before, mask, DrawRequest(prompt="tiger face", seed=4, pixels=64, steps=2))
    changed = (np.asarray(after) != np.asarray(before)).any(axis=-1)
    assert not changed[:, :32].any()
    assert changed[:, 32:].mean() > 0.5


def test_a_request_says_what_the_measurement_says() -> None:
    fields = fields_of(DrawRequest(prompt="apple", negative="red", seed=3))
    assert (fields["steps"], fields["cfg_scale"], fields["width"], fields["height"]) == (20, 5.0, 128, 128)
    assert (fields["prompt"], fields["negative_prompt"], fields["seed"]) == ("apple", "red", 3)
