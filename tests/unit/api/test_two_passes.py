"""Large pictures of a model that draws only small ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.api.hires import target_of
from darkroom.api.models import Img2Img, Txt2Img
from darkroom.api.two_passes import in_two_passes, layout_size
from darkroom.jobs.spec import CheckpointInfo

SMALL = CheckpointInfo(key="m", filename="m.safetensors", path="m.safetensors", native_size=128, largest_size=128)
SIDES = st.integers(8, 2048)


def test_a_large_picture_is_laid_out_at_the_native_size() -> None:
    wire = in_two_passes(Txt2Img(prompt="cat", width=512, height=512), (512, 512), SMALL)
    assert isinstance(wire, Txt2Img)
    assert wire.enable_hr
    assert (wire.width, wire.height, wire.hr_resize_x, wire.hr_resize_y) == (128, 128, 512, 512)


def test_what_a_client_says_of_a_second_pass_that_it_did_not_ask_for_does_not_count() -> None:
    plain = Txt2Img(prompt="cat", width=512, height=512)
    idle = {"hr_prompt": "dog", "hr_second_pass_steps": 9, "hr_checkpoint_name": "nowhere", "firstpass_image": "?"}
    assert in_two_passes(plain.model_copy(update=idle), (512, 512), SMALL) == in_two_passes(plain, (512, 512), SMALL)


@given(width=st.integers(129, 2048), height=SIDES)
def test_a_picture_in_two_passes_is_as_large_as_in_one(width: int, height: int) -> None:
    wire = in_two_passes(Txt2Img(prompt="cat"), (width, height), SMALL)
    assert isinstance(wire, Txt2Img)
    first, target = (wire.width or 0, wire.height or 0), (wire.hr_resize_x or 0, wire.hr_resize_y or 0)
    (wide, high), crop = target_of(first, 0, target)
    assert (wide // 8 - crop[0], high // 8 - crop[1]) == (width // 8, height // 8)


@pytest.mark.parametrize(
    ("wire", "size", "checkpoint"),
    [
        (Txt2Img(prompt="cat"), (128, 128), SMALL),
        (Txt2Img(prompt="cat", enable_hr=True), (512, 512), SMALL),
        (Img2Img(prompt="cat"), (512, 512), SMALL),
        (Txt2Img(prompt="cat"), (512, 512), replace(SMALL, largest_size=None)),
    ],
    ids=["small", "hires fix already", "img2img", "a model that states no limit"],
)
def test_every_other_request_stays_as_it_is(
    wire: Txt2Img | Img2Img, size: tuple[int, int], checkpoint: CheckpointInfo
) -> None:
    assert in_two_passes(wire, size, checkpoint) is wire


@given(width=SIDES, height=SIDES)
def test_a_layout_has_the_proportions_of_its_picture_as_far_as_latents_allow(width: int, height: int) -> None:
    wide, high = layout_size(width, height, 128)
    assert wide % 8 == high % 8 == 0
    assert max(wide, high) == 128
    factor = 128 / max(width, height)
    assert abs(wide - max(8, width * factor)) <= 4
    assert abs(high - max(8, height * factor)) <= 4
