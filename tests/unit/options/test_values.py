import contextlib
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import darkroom
from darkroom.errors import BadRequest
from darkroom.options.table import TABLE
from darkroom.options.values import STEERING, OptionValues, has_no_effect

PACKAGE = Path(darkroom.__file__).parent
CODE = "".join(
    path.read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*")
    if path.suffix in {".py", ".js"} and path.parent.name != "options"
)
HINTS = get_type_hints(OptionValues)


def test_an_option_that_steers_something_is_read_somewhere() -> None:
    assert [name for name in STEERING if not re.search(rf'\.{name}\b|"{name}"', CODE)] == []


@pytest.mark.parametrize("name", HINTS)
def test_an_attribute_has_the_type_that_the_table_reads(name: str) -> None:
    hint, option = HINTS[name], TABLE[name]
    if get_origin(hint) is Literal:
        assert option.allowed == f"one of {', '.join(get_args(hint))}"
    elif isinstance(hint, UnionType):
        assert set(get_args(hint)) == {str, NoneType}
        assert option.kind == "text or null"
    else:
        assert type(option.default) is (get_origin(hint) or hint)


def test_attributes_stand_in_the_order_of_the_table() -> None:
    assert [name for name in TABLE if name in STEERING] == list(HINTS)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="never change"):
        OptionValues().jpeg_quality = 5


def test_a_copy_differs_in_what_was_changed_only() -> None:
    values = OptionValues()
    merged = values.merged({"jpeg_quality": "70", "ESRGAN_tile": 64})
    assert (merged.jpeg_quality, merged["ESRGAN_tile"]) == (70, 64)
    assert values == OptionValues() != merged
    assert hash(values) == hash(OptionValues())
    assert merged.as_json() == values.as_json() | {"jpeg_quality": 70, "ESRGAN_tile": 64}
    assert list(merged.as_json()) == list(TABLE)


@given(
    name=st.sampled_from(list(TABLE)), value=st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text())
)
def test_any_value_of_an_option_is_taken_or_refused_by_name(name: str, value: object) -> None:
    with contextlib.suppress(BadRequest):
        merged = OptionValues().merged({name: value})
        assert OptionValues().merged(merged.as_json()) == merged


def test_a_refusal_names_the_option_the_value_and_what_is_allowed() -> None:
    with pytest.raises(BadRequest, match=r"override_settings\.jpeg_quality: 101 .* a whole number from 1 to 100"):
        OptionValues().merged({"jpeg_quality": 101}, field="override_settings.")
    with pytest.raises(BadRequest, match=r"nonsense: 1 .* no such option"):
        OptionValues().merged({"nonsense": 1})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("nonsense", None, True),
        ("jpeg_quality", 5, False),
        ("ldsr_steps", 64, True),
        ("ESRGAN_tile", "192", False),
        ("ldsr_steps", "abc", True),
        ("quicksettings_list", ["sd_model_checkpoint"], False),
        ("quicksettings_list", [], True),
        ("api_forbid_local_requests", False, True),
        ("api_forbid_local_requests", True, False),
        ("sd_checkpoint_hash", "abc", True),
    ],
)
def test_what_changes_nothing_is_known(name: str, value: object, expected: bool) -> None:
    assert has_no_effect(name, value, OptionValues()) == expected


def test_an_option_that_clients_cannot_change_is_compared_with_what_it_is() -> None:
    assert not has_no_effect("api_enable_requests", True, OptionValues({"api_enable_requests": True}))
