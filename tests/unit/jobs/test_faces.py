"""Faces restored in pictures that were drawn."""

import numpy as np
import pytest

from darkroom.jobs.ops import Aside, Op, Program, RestoreFaces
from darkroom.jobs.programs import BEFORE_FACES, with_faces_restored
from darkroom.jobs.spec import FaceRestoration, Model, Picture

MODEL = Model(checkpoint="a")


def drawing(picture: Picture) -> Program:
    yield Aside("-first", picture)
    return picture


def run(picture: Picture, restoration: FaceRestoration) -> tuple[Picture, list[Op]]:
    asked: list[Op] = []
    program = with_faces_restored(drawing(picture), MODEL, restoration)
    answer: Picture | None = None
    while True:
        try:
            op = program.send(answer)
        except StopIteration as end:
            result: Picture = end.value
            return result, asked
        asked.append(op)
        answer = 255 - op.picture if isinstance(op, RestoreFaces) else None


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_restored_and_a_cover_stays(channels: int) -> None:
    picture = np.full((8, 8, channels), 30, np.uint8)
    result, asked = run(picture, FaceRestoration(restorer="GFPGAN"))
    assert (result[..., :3] == 225).all()
    assert (result[..., 3:] == 30).all()
    assert [type(op) for op in asked] == [Aside, RestoreFaces]


def test_the_picture_before_is_handed_over_where_it_is_kept() -> None:
    picture = np.full((8, 8, 3), 30, np.uint8)
    _, asked = run(picture, FaceRestoration(restorer="GFPGAN", keep=True))
    kept = [op for op in asked if isinstance(op, Aside) and op.suffix == BEFORE_FACES]
    assert [(op.picture == 30).all() for op in kept] == [True]
