"""Which questions may share a forward pass."""

import numpy as np
import torch

from darkroom.engine.lane import batch_key, row_count
from darkroom.jobs.ops import Cond, Decode, Denoise, EncodeImage, EncodeText, Question, Row
from darkroom.jobs.spec import Model


def denoise(
    *, checkpoint: str = "a", size: int = 8, sigma: float = 1.0, tokens: int = 77, beside: int = 0, rows: int = 2
) -> Denoise:
    cond = Cond(torch.zeros(tokens, 8), torch.zeros(beside) if beside else None)
    row = Row(torch.zeros(4, size, size), sigma, 500.0, cond)
    return Denoise(model=Model(checkpoint=checkpoint), rows=(row,) * rows, step=0, steps=10)


def test_rows_at_different_noise_levels_share_a_pass() -> None:
    assert batch_key(denoise(sigma=1.0)) == batch_key(denoise(sigma=9.0, rows=1))


def test_checkpoint_shape_and_text_length_keep_rows_apart() -> None:
    keys = {batch_key(op) for op in (denoise(), denoise(checkpoint="b"), denoise(size=16), denoise(tokens=154))}
    assert len(keys) == 4


def test_what_lies_beside_the_text_keeps_rows_apart_by_its_width() -> None:
    assert len({batch_key(denoise(beside=width)) for width in (0, 16, 24)}) == 3


def test_every_kind_of_question_is_its_own_batch() -> None:
    ops: list[Question] = [
        denoise(),
        Decode(model=Model(checkpoint="a"), latent=torch.zeros(4, 8, 8)),
        EncodeImage(model=Model(checkpoint="a"), picture=np.zeros((64, 64, 3), np.uint8)),
        EncodeText(model=Model(checkpoint="a"), texts=("",)),
    ]
    assert len({batch_key(op) for op in ops}) == 4
    assert [row_count(op) for op in ops] == [2, 1, 1, 1]
