"""What a scenario finds: named values with their spread, and what was hoped for. Tables and JSON are made of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, measured in several rounds. Without values it could not be measured, and `note` says why.

    `at_least` or `at_most` is the goal for the median, if there is one.
    """

    name: str
    values: tuple[float, ...] = ()
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the goal; None if there is none, or nothing was measured."""
        if not self.values or (self.at_least is None and self.at_most is None):
            return None
        above = self.at_least is None or self.middle >= self.at_least
        return above and (self.at_most is None or self.middle <= self.at_most)

    @property
    def spread(self) -> str:
        """Median and range, in words."""
        if not self.values:
            return ""
        shown = figure(self.middle) + (f" {self.unit}" if self.unit else "")
        return shown if len(self.values) == 1 else f"{shown} ({figure(min(self.values))} to {figure(max(self.values))})"

    @property
    def goal(self) -> str:
        """The goal, in words."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


def figure(value: float) -> str:
    """A number with three digits that count."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratios(name: str, above: Sequence[float], below: Sequence[float], **goal: float) -> Row:
    """One quantity by another, round by round."""
    return Row(name=name, values=tuple(a / b for a, b in zip(above, below, strict=True)), **goal)  # type: ignore[arg-type]


def as_json(found: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """All rows by scenario."""
    return {name: [asdict(row) | {"reached": row.reached} for row in rows] for name, rows in found.items()}


def table(rows: Iterable[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| measured | median (range) | goal | reached |", "|---|---|---|---|"]
    words = {True: "yes", False: "no", None: ""}
    for row in rows:
        shown = row.spread or f"– {row.note}"
        lines.append(f"| {row.name} | {shown}{f'; {row.note}' if row.values and row.note else ''} | {row.goal} "
                     f"| {words[row.reached]} |")  # fmt: skip
    return lines


def page(when: str, machine: Mapping[str, str], found: Mapping[str, Sequence[Row]]) -> str:
    """A run as a page of Markdown."""
    parts = [f"# Measured {when}", "", *(f"- {name}: {value}" for name, value in machine.items()), ""]
    for name, rows in found.items():
        parts += [f"## {name}", "", *table(rows), ""]
    return "\n".join(parts)
