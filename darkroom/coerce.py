"""Reads JSON scalars as leniently as the clients of the A1111 API expect: "7" for 7, 20.0 for 20, 1 for true.

Knows the types and the wording of their refusals. Knows nothing of requests, options or limits.
"""

import json
import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})


def _refuse_null(value: object) -> None:
    if value is None:
        raise PydanticCustomError("type_error.none.not_allowed", "none is not an allowed value")


def read_int(value: object) -> int:
    """An integer from an integer, a float (its fraction is cut off), a boolean or the text of an integer."""
    _refuse_null(value)
    if isinstance(value, bool | int | float | str):
        try:
            return int(value)
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError("type_error.integer", "value is not a valid integer")


def read_float(value: object) -> float:
    """A finite float from a number, a boolean or the text of a number."""
    _refuse_null(value)
    number = math.nan
    if isinstance(value, bool | int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise PydanticCustomError("type_error.float", "value is not a valid float") from None
        if not math.isfinite(number):
            raise PydanticCustomError("value_error.number.not_finite", "value is not a finite number")
        return number
    raise PydanticCustomError("type_error.float", "value is not a valid float")


def read_bool(value: object) -> bool:
    """A boolean from a boolean, 0, 1 or one of the usual words in any letter case."""
    _refuse_null(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in {0, 1}:
        return bool(value)
    if isinstance(value, str):
        word = value.lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise PydanticCustomError("type_error.bool", "value could not be parsed to a boolean")


def read_text(value: object) -> str:
    """A text from a text, a number or a boolean. Half of a surrogate pair is no text."""
    _refuse_null(value)
    if not isinstance(value, str | bool | int | float):
        raise PydanticCustomError("type_error.str", "str type expected")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("value_error.str.surrogate", "text holds half of a surrogate pair") from None
    return text


def read_json(value: Any) -> Any:
    """Any JSON that can be written again: finite numbers, whole characters, not nested without end."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise PydanticCustomError("value_error.json", "value holds something that JSON cannot") from None
    return value


def read_list(value: object) -> list[Any]:
    """A JSON array."""
    _refuse_null(value)
    if not isinstance(value, list):
        raise PydanticCustomError("type_error.list", "value is not a valid list")
    read_json(value)
    return value


def read_object(value: object) -> object:
    """A JSON object; an empty array counts as one, since PHP clients cannot say it otherwise."""
    _refuse_null(value)
    if value == [] and isinstance(value, list):
        return {}
    if not isinstance(value, dict):
        raise PydanticCustomError("type_error.dict", "value is not a valid dict")
    return read_json(value)


def one_of(*permitted: int) -> Callable[[object], object]:
    """Only these numbers, as JSON integers."""

    def check(value: object) -> object:
        _refuse_null(value)
        if value in permitted and not isinstance(value, bool):
            return value
        shown = ", ".join(map(str, permitted))
        raise PydanticCustomError(
            "value_error.const",
            "unexpected value; permitted: {shown}",
            {"shown": shown},
        )

    return check


def above(limit: int) -> Callable[[float], float]:
    """Only numbers greater than `limit`."""

    def check(value: float) -> float:
        if value > limit:
            return value
        raise _out_of_range("not_gt", "greater than", limit)

    return check


def from_(limit: int) -> Callable[[float], float]:
    """Only numbers not below `limit`."""

    def check(value: float) -> float:
        if value >= limit:
            return value
        raise _out_of_range("not_ge", "greater than or equal to", limit)

    return check


def up_to(limit: int) -> Callable[[float], float]:
    """Only numbers not above `limit`."""

    def check(value: float) -> float:
        if value <= limit:
            return value
        raise _out_of_range("not_le", "less than or equal to", limit)

    return check


def _out_of_range(kind: str, words: str, limit: int) -> PydanticCustomError:
    return PydanticCustomError(
        f"value_error.number.{kind}",
        f"ensure this value is {words} {{limit_value}}",
        {"limit_value": limit},
    )


Int = Annotated[int, BeforeValidator(read_int)]
Float = Annotated[float, BeforeValidator(read_float)]
Share = Annotated[float, BeforeValidator(read_float), AfterValidator(from_(0)), AfterValidator(up_to(1))]
Bool = Annotated[bool, BeforeValidator(read_bool)]
Text = Annotated[str, BeforeValidator(read_text)]
List = Annotated[list[Any], BeforeValidator(read_list)]
Texts = Annotated[list[Text], BeforeValidator(read_list)]
Object = Annotated[dict[str, Any], BeforeValidator(read_object)]
