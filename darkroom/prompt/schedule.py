"""Prompt editing: `[from:to:when]` and `[a|b]` make a prompt change while the picture is sampled. Knows text only.

The grammar; whatever does not fit it stays text, but a text with a `|` outside an alternation is not read at all:

    prompt     = { group | plain } ;
    emphasized = "(" prompt [ ":" prompt ] ")" | "[" prompt "]" ;             kept as text, its groups are read
    scheduled  = "[" [ prompt ":" ] prompt ":" number "]" ;
    alternate  = "[" prompt "|" prompt { "|" prompt } "]" ;

A group holds no bracket, colon or bar outside the groups in it; a backslash takes the next character's meaning away.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(r"[^\\\[\]():|]+|\\.|[\[\]():|]")
_NUMBER = re.compile(r"\s*([+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))\s*")
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Entry:
    """The text that a prompt stands for up to model call `until`, the first call being number 0."""

    until: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """How the `when` of an edit becomes a call number. `steps` are the calls that the pass is expected to make.

    `first_pass` are those of the pass before, in a second one. `old_rules`: numbers below 1 are fractions, with or
    without a decimal point, and a second pass repeats the first pass' schedule.
    """

    steps: int
    first_pass: int | None = None
    old_rules: bool = False

    @property
    def length(self) -> int:
        """The call number that the schedule ends with."""
        return self.steps if self.first_pass is None or not self.old_rules else self.first_pass

    def call(self, when: str) -> int:
        """The last call before the edit; below 1 if it never waits."""
        value = float(when)
        if self.old_rules:
            value = value * self.length if value < 1 else value
        elif "." in when:
            value = (value - (0 if self.first_pass is None else 1)) * self.length
        else:
            value -= self.first_pass or 0
        return int(max(-1.0, min(value, self.length)))


@dataclass(frozen=True, slots=True)
class _Kept:
    items: tuple["_Item", ...]

    def at(self, _step: int, _timeline: Timeline) -> tuple["_Item", ...]:
        return self.items


@dataclass(frozen=True, slots=True)
class _Edit:
    before: tuple["_Item", ...]
    after: tuple["_Item", ...]
    when: str

    def at(self, step: int, timeline: Timeline) -> tuple["_Item", ...]:
        return self.before if step <= timeline.call(self.when) else self.after


@dataclass(frozen=True, slots=True)
class _Alternation:
    options: tuple[tuple["_Item", ...], ...]

    def at(self, step: int, _timeline: Timeline) -> tuple["_Item", ...]:
        return self.options[(step - 1) % len(self.options)]


_Item = str | _Kept | _Edit | _Alternation


def schedule(text: str, timeline: Timeline) -> list[Entry]:
    """The texts that a prompt stands for, in order; any text is valid."""
    items = _parse(text)
    if items is None:
        return [Entry(timeline.length, text)]
    return [Entry(step, _text_at(items, step, timeline)) for step in _break_points(items, timeline)]


def entry_at(entries: Sequence[Entry], call: int) -> int:
    """The index of the entry for a model call. A1111: calls past the end go back to the first entry."""
    return next((i for i, entry in enumerate(entries) if call <= entry.until), 0)


class _Frame:
    """An open bracket, and what was read since: parts with the separators between them."""

    def __init__(self, bracket: str) -> None:
        self.bracket = bracket
        self.parts: list[list[_Item]] = [[]]
        self.separators: list[str] = []

    def closed(self, closing: str) -> _Item | None:
        """The group that this bracket makes with a closing one, None if it makes none."""
        if _CLOSING.get(self.bracket) != closing:
            return None
        if not self.separators or (self.bracket == "(" and self.separators == [":"]):
            return _Kept((self.bracket, *self.flat(), closing))
        if self.bracket == "(":
            return None
        if set(self.separators) == {"|"}:
            return _Alternation(tuple(tuple(part) for part in self.parts))
        return self._edit()

    def _edit(self) -> _Edit | None:
        when = _number(self.parts[-1])
        if when is None or self.separators not in ([":"], [":", ":"]):
            return None
        *before, after = self.parts[:-1]
        return _Edit(tuple(before[0]) if before else (), tuple(after), when)

    def flat(self) -> Iterator[_Item]:
        """What was read, with the separators as text again."""
        yield from self.parts[0]
        for separator, part in zip(self.separators, self.parts[1:], strict=True):
            yield separator
            yield from part


def _parse(text: str) -> list[_Item] | None:
    """The groups and the text between them; None if a `|` fits nowhere, or a backslash has no character behind it.

    A1111: a line break is none.
    """
    frames = [_Frame("")]  # the first holds what lies outside all brackets
    end = 0
    for token in _TOKEN.finditer(text):
        if token.start() != end or not _read(token[0], frames):
            return None
        end = token.end()
    if end < len(text) or not _dissolve(frames):
        return None
    return list(frames[0].flat())


def _read(piece: str, frames: list[_Frame]) -> bool:
    """Take one piece of text; False if the whole cannot be read."""
    if piece in _CLOSING:
        frames.append(_Frame(piece))
    elif piece in _CLOSING.values():
        return _close(piece, frames)
    elif piece in {":", "|"} and len(frames) > 1:
        frames[-1].separators.append(piece)
        frames[-1].parts.append([])
    elif piece == "|":
        return False
    else:
        frames[-1].parts[-1].append(piece)
    return True


def _close(closing: str, frames: list[_Frame]) -> bool:
    group = frames[-1].closed(closing)
    if group is not None:
        frames.pop()
        frames[-1].parts[-1].append(group)
        return True
    dissolved = _dissolve(frames)
    frames[0].parts[0].append(closing)
    return dissolved


def _dissolve(frames: list[_Frame]) -> bool:
    """No bracket that is open makes a group any more: all become text. False if that leaves a `|` outside a group."""
    for frame in frames[1:]:
        if "|" in frame.separators:
            return False
        frames[0].parts[0].extend([frame.bracket, *frame.flat()])
    del frames[1:]
    return True


def _number(part: Sequence[_Item]) -> str | None:
    found = _NUMBER.fullmatch(part[0]) if len(part) == 1 and isinstance(part[0], str) else None
    return found[1] if found else None


def _break_points(items: Iterable[_Item], timeline: Timeline) -> list[int]:
    """The steps after which the text may change, and the last one. No recursion here: prompts come from outside."""
    points = {timeline.length}
    waiting = list(items)
    while waiting:
        match waiting.pop():
            case _Kept(inner):
                waiting.extend(inner)
            case _Edit(before, after, when):
                waiting.extend([*before, *after])
                points.add(timeline.call(when))
            case _Alternation(options):
                waiting.extend(inner for option in options for inner in option)
                points.update(range(1, timeline.length + 1))
    return sorted(point for point in points if point >= 1 or point == timeline.length)


def _text_at(items: Sequence[_Item], step: int, timeline: Timeline) -> str:
    text: list[str] = []
    waiting = list(reversed(items))
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            text.append(item)
        else:
            waiting.extend(reversed(item.at(step, timeline)))
    return "".join(text)
