"""The report counts what it says it counts, and the small sampler begins and ends where it must."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from darkroom.mini import dataset, drawing, report
from darkroom.mini.drawing import DrawRequest


def flat(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (32, 32), colour)


def test_green_is_greener_than_red_and_white_does_not_count() -> None:
    half = flat((255, 255, 255))
    half.paste((40, 200, 40), (0, 0, 16, 32))
    assert report.greenness(half) == report.greenness(flat((40, 200, 40)))
    assert report.greenness(half) > report.greenness(flat((200, 40, 40)))
    assert report.greenness(flat((255, 255, 255))) == 0


def test_apples_are_counted_seed_by_seed() -> None:
    def draw(requests: Sequence[DrawRequest]) -> list[Image.Image]:
        return [flat((40, 200, 40) if r.negative == "red" and r.seed < 7 else (200, 40, 40)) for r in requests]

    pictures, greener = report.draw_apples(draw)
    assert len(pictures) == 2 * report.APPLES
    assert greener == 7


def test_a_change_outside_the_mask_is_counted() -> None:
    def draw(requests: Sequence[DrawRequest]) -> list[Image.Image]:
        return [flat((0, 0, 0)) for _ in requests]

    def honest(before: Image.Image, mask: Image.Image, _request: DrawRequest) -> Image.Image:
        return Image.composite(flat((200, 40, 40)), before, mask)

    def careless(_before: Image.Image, _mask: Image.Image, _request: DrawRequest) -> Image.Image:
        return flat((200, 40, 40))

    assert report.draw_inpaint(draw, honest)[1] == 0
    assert report.draw_inpaint(draw, careless)[1] == 16 * 32


def test_sigmas_begin_at_the_noisiest_level_and_end_at_zero() -> None:
    sigmas = drawing.sigmas_for(20)
    assert len(sigmas) == 21
    assert float(sigmas[0]) == pytest.approx(14.6146, abs=1e-3)
    assert float(sigmas[-1]) == 0
    assert (sigmas[:-1] > sigmas[1:]).all()
    assert drawing.time_of(float(sigmas[0])) == pytest.approx(999, abs=0.01)


@pytest.mark.skipif(not dataset.FONT.exists(), reason=f"the emoji font is not installed: {dataset.FONT}")
def test_the_judged_captions_are_always_the_same() -> None:
    glyphs = dataset.load_glyphs(limit=120)
    first, second = report.draw_questions(glyphs, 40), report.draw_questions(glyphs, 40)
    assert first == second
    assert len({question.glyph for question in first}) == 40
    assert all(glyphs[question.glyph].same_as == question.glyph for question in first)
    named = [question for question in first if question.background]
    assert all(question.caption.endswith(f"a {question.background} background") for question in named)


def test_a_grid_has_room_for_every_picture() -> None:
    sheet = drawing.grid([flat((0, 0, 0))] * 5, columns=3)
    assert sheet.size == (96, 64)
    assert np.asarray(sheet)[40, 80].tolist() == [255, 255, 255]
