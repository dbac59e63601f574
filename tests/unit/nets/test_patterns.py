"""Regular expressions of strangers end in time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import BadRequest
from darkroom.nets.pattern_process import answer
from darkroom.nets.patterns import MAX_LENGTH, names_with

NAMES = ["model.diffusion_model.out.2.weight", "model_ema.decay", "first_stage_model.encoder.conv_in.weight", "grüße"]


def test_names_are_found_by_any_part_of_them() -> None:
    assert names_with(r"model_ema\.|conv_in", NAMES, field="discard") == {NAMES[1], NAMES[2]}
    assert names_with("ü", NAMES, field="discard") == {NAMES[3]}
    assert names_with("^nothing$", NAMES, field="discard") == frozenset()


def test_no_expression_finds_nothing() -> None:
    assert names_with("", NAMES, field="discard") == frozenset()


@pytest.mark.parametrize("expression", ["(", "*", "[a", "a{2,1}", "(?P<n>", "\\"])
def test_what_is_no_expression_is_refused_by_field_and_value(expression: str) -> None:
    with pytest.raises(BadRequest, match=r"discard: .* is not allowed; a regular expression: "):
        names_with(expression, NAMES, field="discard")


def test_an_expression_that_would_take_for_ever_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(BadRequest, match=r"found within 0\.3 s"):
        names_with("(a|aa)+$", ["a" * 60 + "b"], field="discard", timeout_s=0.3)
    assert time.monotonic() - began < 5


def test_a_long_expression_is_refused() -> None:
    with pytest.raises(BadRequest, match=f"at most {MAX_LENGTH} characters"):
        names_with("a" * (MAX_LENGTH + 1), NAMES, field="discard")


@given(st.text(max_size=12))
@settings(max_examples=200)
def test_whatever_is_sent_is_found_or_told_to_be_no_expression(expression: str) -> None:
    found = answer(expression, NAMES)
    assert found.keys() in ({"found"}, {"error"})
    if found.keys() == {"found"}:
        assert found["found"] == [name for name in NAMES if re.search(expression, name)]
