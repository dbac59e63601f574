"""Room for weights in one block."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.nets.rooms import MAPPED_FROM, rooms

SHAPES = st.lists(st.lists(st.integers(0, 6), max_size=4).map(tuple), max_size=8)


@given(SHAPES, st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_every_tensor_has_its_shape_and_a_place_of_its_own(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> None:
    found = list(rooms(shapes, dtype))
    assert [tuple(room.shape) for room in found] == shapes
    for number, room in enumerate(found):
        assert room.dtype == dtype
        if room.numel():
            assert room.data_ptr() % 64 == 0
            assert room.dim() != 4 or room.is_contiguous(memory_format=torch.channels_last)
        room.fill_(number)
    for number, room in enumerate(found):
        assert (room == number).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read where Linux tells it")
def test_a_large_block_is_given_back_when_its_last_tensor_goes() -> None:
    count = 64 * MAPPED_FROM // 4
    before = resident_bytes()
    kept, *others = [room.fill_(1.0) for room in rooms([(16,), (count,), (count, 1)], torch.float32)]
    del others
    assert resident_bytes() - before > 100 * MAPPED_FROM
    assert kept.sum() == 16
    del kept
    assert resident_bytes() - before < 20 * MAPPED_FROM


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
