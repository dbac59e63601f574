"""What is used of limits: counted exactly by any number of servers, and not forgotten by a restart."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.allowances import Rate
from darkroom.history.database import Database
from darkroom.history.usage import WINDOW_S, Usage
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(100_000.0)


@pytest.fixture
def usage(database: Database, clock: Clock) -> Usage:
    return Usage(database, clock)


def take(usage: Usage, rate: Rate, count: int, owner: str = "ann") -> list[bool]:
    return [usage.take_turn(owner, rate) == 0 for _ in range(count)]


def test_so_many_requests_pass_at_once_and_then_one_at_a_time(usage: Usage, clock: Clock) -> None:
    rate = Rate(count=3, per_s=60)
    assert take(usage, rate, 5) == [True, True, True, False, False]
    assert usage.take_turn("ann", rate) == pytest.approx(20)
    assert take(usage, rate, 1, owner="ben") == [True]
    clock.now += 20
    assert take(usage, rate, 2) == [True, False]
    clock.now += 60
    assert take(usage, rate, 4) == [True, True, True, False]


@given(st.integers(1, 50), st.sampled_from([1, 60, 3600]), st.lists(st.floats(0, 100), max_size=60))
def test_no_stretch_of_time_lets_in_more_than_the_rate_and_the_burst(
    count: int, per_s: int, pauses: list[float]
) -> None:
    rate, now, paid_at = Rate(count=count, per_s=per_s), 0.0, 0.0
    let_in: list[float] = []
    for pause in pauses:
        now += pause
        paid_at, wait_s = rate.take(paid_at, now)
        if not wait_s:
            let_in.append(now)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            stretch_s = let_in[last] - let_in[first]
            assert last - first + 1 <= count + stretch_s / rate.interval_s + 1e-3


def test_work_counts_for_an_hour(usage: Usage, clock: Clock) -> None:
    assert usage.charge("ann", "a", 60, 100) == 0
    clock.now += 1000
    assert usage.charge("ann", "b", 40, 100) == 0
    assert usage.charge("ben", "c", 100, 100) == 0
    assert usage.charge("ann", "d", 1, 100) == pytest.approx(WINDOW_S - 1000)
    assert usage.charge("ann", "e", 100, 100) == pytest.approx(WINDOW_S)
    assert usage.used("ann") == 100
    clock.now += WINDOW_S - 1000
    assert usage.charge("ann", "f", 60, 100) == 0
    assert usage.charge("ann", "g", 0.1, 100) == pytest.approx(1000)


def test_what_nothing_came_of_is_not_counted(usage: Usage) -> None:
    usage.charge("ann", "a", 60, 100)
    usage.add("ann", "a", 30)
    assert usage.used("ann") == 90
    usage.refund("a")
    assert usage.used("ann") == 0


def test_what_counts_no_more_is_forgotten(usage: Usage, clock: Clock, database: Database) -> None:
    usage.charge("ann", "a", 60, 100)
    usage.take_turn("ann", Rate(count=1))
    clock.now += WINDOW_S + 1
    usage.charge("ann", "b", 1, 100)
    usage.tidy()
    clock.now -= WINDOW_S
    assert usage.used("ann") == 1
    assert take(usage, Rate(count=1), 1) == [True]


def test_another_server_on_the_same_database_counts_along(database: Database, clock: Clock) -> None:
    first, second = Usage(database, clock), Usage(database, clock)
    assert take(first, Rate(count=2), 2) == [True, True]
    assert take(second, Rate(count=2), 1) == [False]
    first.charge("ann", "a", 99, 100)
    assert second.charge("ann", "b", 2, 100) > 0


def in_parallel(act: Callable[[int], bool]) -> int:
    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(act, range(24)))


def test_at_the_same_moment_no_more_pass_than_one_after_another(database: Database) -> None:
    """As many servers as threads."""
    rate = Rate(count=5, per_s=3600)
    assert in_parallel(lambda _: Usage(database).take_turn("ann", rate) == 0) == 5
    assert in_parallel(lambda number: Usage(database).charge("ann", f"{number}", 10, 70) == 0) == 7
