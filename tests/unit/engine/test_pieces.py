"""Pictures that are worked on piece by piece, as a lane sees them."""

import numpy as np
import pytest
import torch

from darkroom.engine.lane import Lane, batch_key
from darkroom.jobs.ops import Cond, Denoise, EnlargeTile, Interrupted, Program, RestoreFace, RestoreFaces, Row, Upscale
from darkroom.jobs.spec import FaceRestoration, Model, Picture

BEFORE, AFTER = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
MODEL = Model(checkpoint="a")


def tile(step: int = 0, steps: int = 0, *, upscaler: str = "x", picture: Picture = BEFORE) -> EnlargeTile:
    return EnlargeTile(upscaler=upscaler, picture=picture, step=step, steps=steps)


def denoise(step: int, part: int = 0) -> Denoise:
    row = Row(torch.zeros(4, 8, 8), 1.0, 500.0, Cond(torch.zeros(77, 8)))
    return Denoise(model=MODEL, rows=(row,), step=step, steps=10, part=part)


def lane(program: Program) -> Lane:
    return Lane(program, index=0, arrival=0)


def in_tiles(count: int) -> Program:
    try:
        for step in range(count):
            yield tile(step, count)
    except Interrupted:
        return BEFORE
    return AFTER


def test_a_job_of_tiles_is_as_far_as_its_tiles() -> None:
    running = lane(in_tiles(4))
    seen = []
    while running.op is not None:
        seen.append(running.passed)
        running.answer(AFTER)
    assert seen == [0, 0.25, 0.5, 0.75]
    assert (running.passed, running.picture is AFTER) == (1, True)


def test_an_interrupt_stops_between_two_tiles() -> None:
    running = lane(in_tiles(4))
    running.answer(AFTER)
    running.interrupt()
    assert running.op is None
    assert running.picture is BEFORE


def test_tiles_between_two_passes_do_not_count_as_steps() -> None:
    def program() -> Program:
        yield denoise(9)
        yield tile(0, 50)
        yield tile(49, 50)
        yield denoise(0, part=1)
        return AFTER

    running = lane(program())
    seen = []
    while running.op is not None:
        seen.append(running.passed)
        running.answer([torch.zeros(4, 8, 8)])
    assert seen == [0.9, 0.9, 0.9, 1.0]


def test_a_pass_after_tiles_counts_its_own_steps() -> None:
    def program() -> Program:
        yield tile(3, 4)
        yield denoise(0)
        return AFTER

    running = lane(program())
    running.answer(AFTER)
    assert (running.step, running.steps) == (0, 10)


@pytest.mark.parametrize("other", [{"upscaler": "y"}, {"picture": np.zeros((8, 16, 3), np.uint8)}])
def test_tiles_share_a_batch_where_network_and_size_are_the_same(other: dict[str, object]) -> None:
    assert batch_key(tile(0)) == batch_key(tile(1, picture=AFTER))
    assert batch_key(tile(0)) != batch_key(tile(0, **other))  # type: ignore[arg-type]


def test_every_kind_of_work_on_pictures_is_its_own_batch() -> None:
    restoration = FaceRestoration(restorer="x")
    ops = (
        tile(),
        RestoreFace(restorer="x", picture=BEFORE, weight=0.5),
        RestoreFaces(model=MODEL, picture=BEFORE, restoration=restoration),
        Upscale(model=MODEL, upscaler="x", picture=BEFORE, size=(8, 8)),
    )
    assert len({batch_key(op) for op in ops}) == 4
