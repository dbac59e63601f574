"""What of a request's JSON was passed over or read as another type. Knows no field."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import BaseModel

_MOST = 20
"""Notes of one request: who sends a thousand unknown fields need not hear of all."""

_SCALARS = (str, int, float, bool)


def leniencies(given: Mapping[Any, Any], made: BaseModel) -> tuple[str, ...]:
    """Unknown fields, texts that were read as numbers or switches (or the reverse), and fractions that were cut off.

    1 for true and 2.0 for 2 lose nothing and are not among them.
    """
    return tuple(islice(_notes(given, made), _MOST))


def _notes(given: Mapping[Any, Any], made: BaseModel) -> Iterator[str]:
    names = {field.alias or name: name for name, field in type(made).model_fields.items()}
    for key, value in given.items():
        if key not in names:
            yield f"{str(key)[:40]!r} is an unknown field"
            continue
        read = getattr(made, names[key])
        if _differs(value, read):
            yield f"{key} {_shown(value)} was read as {_shown(read)}"


def _differs(given: object, read: object) -> bool:
    if not (isinstance(given, _SCALARS) and isinstance(read, _SCALARS)):
        return False
    return isinstance(given, str) != isinstance(read, str) or (isinstance(given, float) and given != read)


def _shown(value: object) -> str:
    return repr(value)[:40]
