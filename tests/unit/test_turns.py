"""Whose turn it is: nobody who brings many jobs keeps another one waiting, and nobody waits for ever."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from darkroom.turns import PATIENCE_S, Line, has_place, in_turn, kept_free

PARTIES = ("ann", "ben", "cleo")


def line(party: str = "ann", priority: int = 0, since: float = 0.0, **changes: Any) -> Line:
    return replace(Line(party=party, priority=priority, since=since), **changes)


def order(*lines: Line, now: float = 1.0) -> list[tuple[str, int]]:
    return [(one.party, one.priority) for one in in_turn(lines, now)]


def test_a_higher_priority_goes_first() -> None:
    assert order(line("ann", 0), line("ben", 5), line("cleo", -5)) == [("ben", 5), ("ann", 0), ("cleo", -5)]


def test_among_equals_whoever_has_least_at_work_goes_first_then_whoever_was_served_longest_ago() -> None:
    busy, idle = line("ann", at_work=1), line("ben", since=0.5)
    assert order(busy, idle)[0] == ("ben", 0)
    assert order(line("ann", served_at=0.4), line("ben", served_at=0.2, since=0.9))[0] == ("ben", 0)
    assert order(line("ann", since=0.2), line("ben", since=0.1))[0] == ("ben", 0)


def test_whoever_has_waited_long_without_a_turn_goes_before_any_priority() -> None:
    low, high = line("ann", -10, since=0), line("ben", 10, since=PATIENCE_S - 1)
    assert order(low, high, now=PATIENCE_S - 0.1)[0] == ("ben", 10)
    assert order(low, high, now=PATIENCE_S)[0] == ("ann", -10)
    just_served = replace(low, begun_at=PATIENCE_S - 1)
    assert order(just_served, high, now=PATIENCE_S)[0] == ("ben", 10)


@given(
    st.lists(st.tuples(st.sampled_from(PARTIES), st.integers(-10, 10)), min_size=2, max_size=6, unique=True),
    st.floats(0.5, 20),
)
def test_no_line_ever_waits_much_longer_than_its_patience(names: list[tuple[str, int]], job_s: float) -> None:
    """Every line always has a job waiting; jobs are done one after another."""
    begun = dict.fromkeys(names, -math.inf)
    waited: dict[tuple[str, int], float] = dict.fromkeys(names, 0.0)
    now = 0.0
    for _ in range(400):
        lines = [line(*name, since=0.0, begun_at=begun[name]) for name in names]
        chosen = in_turn(lines, now)[0]
        begun[chosen.party, chosen.priority] = now
        now += job_s
        for name in names:
            waited[name] = max(waited[name], now - max(begun[name], 0.0))
    assert max(waited.values()) <= PATIENCE_S + (len(names) + 1) * job_s


def test_a_flood_of_long_jobs_delays_another_one_s_job_by_no_more_than_two() -> None:
    now, flood_begun, other_came = 0.0, -math.inf, 10.0
    begun_before = 0
    for _ in range(5):
        lines = [line("flood", since=0.0, begun_at=flood_begun, served_at=flood_begun)]
        lines += [line("ben", since=other_came)] if now >= other_came else []
        if in_turn(lines, now)[0].party == "ben":
            break
        flood_begun = now
        begun_before += now >= other_came
        now += 3 * PATIENCE_S
    else:
        raise AssertionError("never begun")
    assert begun_before <= 1  # beside the one that was at work


@given(st.integers(1, 64))
def test_whoever_is_alone_takes_most_of_the_room_and_somebody_new_always_finds_a_place(room: int) -> None:
    taken = Counter[str]()
    while has_place("flood", taken, room):
        taken["flood"] += 1
    assert taken["flood"] == room - kept_free(room)
    assert room < 2 or has_place("ben", taken, room)
    assert taken["flood"] >= room / 2


@given(st.integers(1, 64))
def test_where_nobody_is_told_apart_the_whole_room_is_used(room: int) -> None:
    taken = Counter[str]()
    while has_place("", taken, room):
        taken[""] += 1
    assert taken[""] == room
