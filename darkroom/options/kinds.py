"""What an option can be: a switch, a number in a range, a text, a choice, a list. Knows no option by name.

Values are read as leniently as the clients of the A1111 API expect ("7" for 7, 20.0 for 20, PNG for png), and kept in
the type of the option from then on. A1111 keeps whatever it is sent.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from darkroom.coerce import read_bool, read_float, read_int, read_list, read_text

Value = bool | int | float | str | tuple[str, ...] | None
Bound = float | None

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_FORBIDDEN = re.compile(r"[\x00-\x1f:]")
"""Never in the name of a folder: control characters, and what stands between a drive and its folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. `read` makes a value of what a client sent, and raises ValueError where that is none.

    `kind` and `allowed` say in words what a value is, `about` what it decides. Clients cannot change an option that is
    `fixed`: the operator does, in the file, or it is the server's own. `choices` are all that there are, where they are
    known; `low` and `high` bound a number.
    """

    default: Value
    kind: str
    allowed: str
    about: str
    read: Callable[[object], Value]
    fixed: bool = False
    choices: tuple[str, ...] = ()
    low: Bound = None
    high: Bound = None

    def means(self, sent: object, value: Value) -> bool:
        """Whether a client that sent this means that value."""
        try:
            return self.read(sent) == value
        except ValueError:
            return False


def switch(default: bool, about: str, *, fixed: bool = False) -> Option:
    """True or false."""
    return Option(default=default, kind="switch", allowed="true or false", about=about, read=read_bool, fixed=fixed)


def whole(default: int, about: str, low: int | None = None, high: int | None = None) -> Option:
    """A whole number; the fraction of another is cut off. A1111 shows most of these as 80 until set, then as 80.0."""

    def read(value: object) -> int:
        number = read_int(value)
        _check_range(number, low, high)
        return number

    allowed = f"a whole number{_range(low, high)}"
    return Option(default=default, kind="integer", allowed=allowed, about=about, read=read, low=low, high=high)


def number(default: float, about: str, low: Bound = None, high: Bound = None) -> Option:
    """A finite number."""

    def read(value: object) -> float:
        number = read_float(value)
        _check_range(number, low, high)
        return number

    allowed = f"a number{_range(low, high)}"
    return Option(default=default, kind="number", allowed=allowed, about=about, read=read, low=low, high=high)


def text(default: str, about: str, *, fixed: bool = False) -> Option:
    """Any text."""
    return Option(default=default, kind="text", allowed="a text", about=about, read=read_text, fixed=fixed)


def colour(default: str, about: str) -> Option:
    """A colour in six hexadecimal digits."""

    def read(value: object) -> str:
        found = read_text(value)
        if not _COLOUR.fullmatch(found):
            raise ValueError(found)
        return found

    return Option(default=default, kind="colour", allowed="a colour like #ff8000", about=about, read=read)


def folder(default: str, about: str) -> Option:
    """A folder that lies in another, whatever system reads its name."""

    def read(value: object) -> str:
        found = read_text(value)
        path = PurePosixPath(found.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or _FORBIDDEN.search(found):
            raise ValueError(found)
        return found

    return Option(default=default, kind="folder", allowed="a folder inside the data folder", about=about, read=read)


def name(about: str) -> Option:
    """The name of something, or null."""

    def read(value: object) -> str | None:
        return None if value is None else read_text(value)

    return Option(default=None, kind="text or null", allowed="a text or null", about=about, read=read)


def choice(default: str, about: str, *among: str) -> Option:
    """One of these texts, in any letter case."""

    def read(value: object) -> str:
        return _choose(read_text(value), among)

    allowed = f"one of {_listed(among)}"
    return Option(default=default, kind="choice", allowed=allowed, about=about, read=read, choices=among)


def texts(default: Sequence[str], about: str, *among: str) -> Option:
    """A list of texts, of any or of these."""

    def read(value: object) -> tuple[str, ...]:
        items = value if isinstance(value, tuple) else read_list(value)
        found = [read_text(item) for item in items]
        return tuple(_choose(item, among) for item in found) if among else tuple(found)

    allowed = f"a list of {_listed(among)}" if among else "a list of texts"
    return Option(default=tuple(default), kind="list", allowed=allowed, about=about, read=read, choices=among)


def note(about: str) -> Option:
    """A note on a settings page of A1111's, which is an option there: empty here, and no setting."""
    return text("", about, fixed=True)


def _check_range(number: float, low: Bound, high: Bound) -> None:
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(number)


def _range(low: Bound, high: Bound) -> str:
    if low is None or high is None:
        return "" if low is None else f" from {low}"
    return f" from {low} to {high}"


def _choose(found: str, among: Sequence[str]) -> str:
    """The choice that is meant. Raises ValueError."""
    if found in among:
        return found
    folded = [known.casefold() for known in among]
    return among[folded.index(found.casefold())]


def _listed(among: Sequence[str]) -> str:
    return ", ".join(among)
