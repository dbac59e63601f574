"""How a script declares its arguments, and how the positional list of a request becomes them.

A script's arguments are the fields of a frozen dataclass, in order. The declaration also fills `/script-info`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from pydantic_core import PydanticCustomError

from darkroom.coerce import read_bool, read_float, read_int, read_text
from darkroom.errors import BadRequest

A = TypeVar("A")

Choices = Callable[["Lists"], Sequence[str]]
Reader = Callable[[object, Sequence[str] | None], object]

_KEY = "argument"

_MOST_CHARS = 100_000
_MOST_MARGIN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The names that an argument may be chosen from and that depend on the installation."""

    tab: str = "txt2img"
    checkpoints: Sequence[str] = ()
    samplers: Sequence[str] = ()
    schedulers: Sequence[str] = ()
    upscalers: Sequence[str] = ()
    vaes: Sequence[str] = ()
    styles: Sequence[str] = ()
    latent_modes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """What is declared of one argument. `shown` is its default as lists show it."""

    label: str
    shown: object
    read: Reader
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: Choices | None = None

    def describe(self, lists: Lists) -> dict[str, object]:
        """The entry of `/script-info`."""
        return {
            "label": self.label,
            "value": self.shown,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "step": self.step,
            "choices": list(self.choices(lists)) if self.choices else None,
        }


def flag(label: str, default: bool) -> Any:
    """Yes or no."""
    return _declare(default, Argument(label=label, shown=default, read=lambda value, _: read_bool(value)))


def whole(label: str, default: int, low: int | None = None, high: int | None = None, step: int | None = None) -> Any:
    """A whole number. A1111: the range is for people; a request may leave it."""
    return _declare(
        default,
        Argument(
            label=label, shown=default, read=lambda value, _: read_int(value), minimum=low, maximum=high, step=step
        ),
    )


def number(label: str, default: float, low: float | None = None, high: float | None = None, step: float = 0.01) -> Any:
    """A number. A1111: the range is for people; a request may leave it."""
    return _declare(
        default,
        Argument(
            label=label, shown=default, read=lambda value, _: read_float(value), minimum=low, maximum=high, step=step
        ),
    )


def words(label: str, default: str = "") -> Any:
    """A text of some length; null is none."""
    return _declare(default, Argument(label=label, shown=default, read=_read_words))


def note(text: str) -> Any:
    """Something that people read. A request must give it a value, which means nothing."""
    return _declare(text, Argument(label="", shown=text, read=lambda _, __: text))


def choice(label: str, default: str, choices: Sequence[str]) -> Any:
    """One of some texts, in any letter case, or its place among them."""
    return _declare(default, Argument(label=label, shown=default, read=_read_choice, choices=lambda _: choices))


def pick(label: str, default: str, choices: Choices, *, absent: str | None = None) -> Any:
    """As `choice`, out of what is installed. Null is `absent`, or refused if there is none."""

    def read_one(value: object, known: Sequence[str] | None) -> object:
        return absent if value is None and absent is not None else _read_choice(value, known)

    return _declare(default, Argument(label=label, shown=default, read=read_one, choices=choices))


def several(label: str, default: Sequence[str], choices: Sequence[str]) -> Any:
    """Any number of some texts."""
    return _declare(
        tuple(default), Argument(label=label, shown=list(default), read=_read_several, choices=lambda _: choices)
    )


def values(label: str) -> Any:
    """A list of texts, or null, or one text for a list of one."""
    return _declare((), Argument(label=label, shown=None, read=_read_values, choices=lambda _: ()))


def describe(arguments: type[object], lists: Lists) -> list[dict[str, object]]:
    """The arguments as `/script-info` lists them."""
    return [argument.describe(lists) for _, argument in _declared(arguments)]


def read(arguments: type[A], given: Sequence[object], lists: Lists, *, field: str, short: bool = False) -> A:
    """The positional values as a script's arguments. With `short`, what is missing keeps its default.

    Raises BadRequest, naming `field` and the place, for a value of another kind or a wrong number of them.
    """
    declared = list(_declared(arguments))
    if len(given) < len(declared) and not short:
        names = ", ".join(name for name, _ in declared)
        raise BadRequest(field, f"{len(given)} values", f"{len(declared)} values: {names}")
    found: dict[str, object] = {}
    for place, ((name, argument), value) in enumerate(zip(declared, given, strict=False)):
        try:
            found[name] = argument.read(value, argument.choices(lists) if argument.choices else None)
        except PydanticCustomError as error:
            raise BadRequest(f"{field}[{place}]", value, f"{name}: {error.message()}") from None
    return arguments(**found)


def _declare(default: object, argument: Argument) -> Any:
    return field(default=default, metadata={_KEY: argument})


def _declared(arguments: type[object]) -> Iterator[tuple[str, Argument]]:
    every: tuple[Field[Any], ...] = fields(arguments)  # type: ignore[arg-type]
    for one in every:
        metadata: Mapping[Any, Any] = one.metadata
        yield one.name, metadata[_KEY]


def check_margin(field: str, margin: int) -> None:
    """Refuse pixels between the cells of a grid that would make it mostly margin. Raises BadRequest."""
    if not 0 <= margin <= _MOST_MARGIN:
        raise BadRequest(field, margin, f"from 0 to {_MOST_MARGIN} pixels")


def _read_words(value: object, _: Sequence[str] | None) -> object:
    text = "" if value is None else read_text(value)
    if len(text) > _MOST_CHARS:
        raise PydanticCustomError("text", "at most {most} characters", {"most": _MOST_CHARS})
    return text


def _read_choice(value: object, choices: Sequence[str] | None) -> object:
    known = list(choices or ())
    if isinstance(value, bool) or value is None:
        raise _not_among(known)
    if isinstance(value, int | float):
        place = read_int(value)
        if not 0 <= place < len(known):
            raise _not_among(known)
        return known[place]
    text = read_text(value)
    found = next((name for name in known if name.lower() == text.lower()), None)
    if found is None:
        raise _not_among(known)
    return found


def _read_several(value: object, choices: Sequence[str] | None) -> object:
    return tuple(_read_choice(one, choices) for one in _listed(value))


def _read_values(value: object, _: Sequence[str] | None) -> object:
    return tuple(read_text(one) for one in _listed(value))


def _listed(value: object) -> Sequence[object]:
    if value is None or value == "":
        return ()
    return value if isinstance(value, list) else (value,)


def _not_among(known: Sequence[str]) -> PydanticCustomError:
    return PydanticCustomError("choice", "one of {known}, or its place", {"known": ", ".join(known[:40])})
