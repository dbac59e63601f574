"""What a user or a key may do and how much: the words for it in the file of credentials and on the command line.

    scope=generate+read  rate=60/min  jobs=4  work=500/h  priority=5

Knows nothing of HTTP, routes or passwords. What is left out is not limited, but for the priority, which is 0.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

Scope = Literal["generate", "read", "admin"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

LOWEST: Final = -10
HIGHEST: Final = 10
"""The bounds of priorities."""

_SECONDS: Mapping[str, int] = MappingProxyType({"s": 1, "min": 60, "h": 3600})
_FIELDS: Mapping[str, str] = MappingProxyType(
    {"scope": "scopes", "rate": "rate", "jobs": "jobs", "work": "work", "priority": "priority"}
)
_RATE = re.compile(r"(\d{1,6})(?:/(s|min|h))?")
_WORK = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(?:/h)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many requests for work at once, and as many again in each `per_s` seconds."""

    count: int
    per_s: int = 60

    @property
    def interval_s(self) -> float:
        """Seconds after which there is room for one more."""
        return self.per_s / self.count

    def take(self, paid_at: float, now: float) -> tuple[float, float]:
        """Count a request at `now`: the new `paid_at`, which is when all requests so far would have been made at the
        regular pace, and how many seconds to wait, 0 where it is let in. What is not let in is not counted.

        The generic cell rate algorithm (ITU-T I.371, annex A).
        """
        from_now = max(paid_at, now)
        wait_s = from_now - now - (self.count - 1) * self.interval_s
        return (paid_at, wait_s) if wait_s > 1e-6 else (from_now + self.interval_s, 0.0)

    def __str__(self) -> str:
        unit = next(name for name, seconds in _SECONDS.items() if seconds == self.per_s)
        return f"{self.count}/{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """`scopes` None: whatever could be done before there were scopes, which is all but seeing what others do.

    `work` is in megapixels times steps, in any hour; `jobs` are those that wait or are at work; `priority` is the
    highest that may be asked for.
    """

    scopes: frozenset[Scope] | None = None
    rate: Rate | None = None
    jobs: int | None = None
    work: float | None = None
    priority: int = 0

    def allows(self, scope: Scope) -> bool:
        """Whether something may be done."""
        return self.scopes is None or scope in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether the work of others may be seen and stopped."""
        return self.scopes is not None and "admin" in self.scopes

    def __str__(self) -> str:
        """As `parse` reads it; empty where nothing is limited."""
        return " ".join(f"{name}={value}" for name, value in _words(self))


ADMINISTRATOR: Final = Allowance(scopes=frozenset(SCOPES), priority=HIGHEST)
"""Everything."""

EVERYBODY_S: Final = Allowance(priority=HIGHEST)
"""What is allowed where nobody is asked who they are."""


def parse(words: Iterable[str]) -> Allowance:
    """Read `name=value` words. Raises ValueError, which says what may be written."""
    found = Allowance()
    seen = set[str]()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in seen:
            raise ValueError(f"{word[:40]!r} is not one of scope=, rate=, jobs=, work=, priority=, each once")
        seen.add(name)
        found = with_word(found, name, value)
    return found


def with_word(allowance: Allowance, name: str, value: str) -> Allowance:
    """An allowance with one of its parts as said; `any` is as if it were not said. Raises ValueError, which says what
    may be written.
    """
    if value == "any" and name in _FIELDS:
        return replace(allowance, **{_FIELDS[name]: getattr(Allowance(), _FIELDS[name])})
    match name:
        case "scope":
            return replace(allowance, scopes=_scopes(value))
        case "rate":
            return replace(allowance, rate=_rate(value))
        case "jobs":
            return replace(allowance, jobs=_whole("jobs", value, 1, 100_000))
        case "work":
            return replace(allowance, work=_work(value))
        case "priority":
            return replace(allowance, priority=_whole("priority", value, LOWEST, HIGHEST))
        case _:
            raise ValueError(f"{name[:40]!r} is not one of scope, rate, jobs, work, priority")


def _words(allowance: Allowance) -> Iterable[tuple[str, object]]:
    if allowance.scopes is not None:
        yield "scope", "+".join(scope for scope in SCOPES if scope in allowance.scopes)
    if allowance.rate is not None:
        yield "rate", allowance.rate
    if allowance.jobs is not None:
        yield "jobs", allowance.jobs
    if allowance.work is not None:
        yield "work", f"{allowance.work:.3f}".rstrip("0").rstrip(".") + "/h"
    if allowance.priority:
        yield "priority", allowance.priority


def _scopes(value: str) -> frozenset[Scope]:
    named = set(value.split("+"))
    known = frozenset(scope for scope in SCOPES if scope in named)
    if len(known) != len(named):
        raise ValueError(f"scope: {value[:40]!r} is not made of {', '.join(SCOPES)}")
    return known


def _rate(value: str) -> Rate:
    found = _RATE.fullmatch(value)
    if not found or not int(found[1]):
        raise ValueError(f"rate: {value[:40]!r} is not a number of requests such as 60/min, 1/s or 1000/h")
    return Rate(count=int(found[1]), per_s=_SECONDS[found[2] or "min"])


def _work(value: str) -> float:
    found = _WORK.fullmatch(value)
    if not found or not math.isfinite(float(found[1])) or float(found[1]) <= 0:
        raise ValueError(f"work: {value[:40]!r} is not a number of megapixels times steps in an hour such as 500/h")
    return float(found[1])


def _whole(name: str, value: str, lowest: int, highest: int) -> int:
    if not re.fullmatch(r"-?\d{1,6}", value) or not lowest <= int(value) <= highest:
        raise ValueError(f"{name}: {value[:40]!r} is not a whole number from {lowest} to {highest}")
    return int(value)
