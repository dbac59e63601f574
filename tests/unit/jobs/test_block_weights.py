"""Strengths of an adapter block by block."""

import pytest

from darkroom.errors import BadRequest
from darkroom.jobs.block_weights import LISTS, read_block_weights


@pytest.mark.parametrize("count", LISTS)
def test_each_number_belongs_to_a_block_of_its_own(count: int) -> None:
    weights = dict(read_block_weights(",".join(map(str, range(count)))))
    assert sorted(weights.values()) == [float(number) for number in range(count)]
    assert weights["BASE"] == 0


@pytest.mark.parametrize(
    ("text", "block", "factor"),
    [
        ("1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.5", "OUT11", 0.5),
        ("1,0,0,0,2,0,0,0,0,0,0,0,0,0,0,0,0", "IN05", 2.0),
        ("1,0,0,0,0,-1,0,0,0,0,0,0", "MID", -1.0),
        ("0,1,0,0,0,0,0,0,0,0,0,0", "IN04", 1.0),
        (" 1, 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,3 ", "OUT08", 3.0),
        ("OUTALL", "OUT03", 1.0),
        ("OUTALL", "IN04", 0.0),
        ("INS", "IN04", 1.0),
        ("ALL0.5", "BASE", 0.5),
    ],
)
def test_lists_are_read_in_the_order_of_the_original_s_blocks(text: str, block: str, factor: float) -> None:
    assert dict(read_block_weights(text))[block] == factor


@pytest.mark.parametrize("text", ["", "1,2", "x", "1,0,0,0,0,0,0,0,0,0,0,nan", "1e9" + ",0" * 11, "MINE"])
def test_other_texts_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(BadRequest, match=r"lbw: .*12, 17, 20, 26 numbers"):
        read_block_weights(text)
