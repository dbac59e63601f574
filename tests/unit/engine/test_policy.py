"""The batching policy, settled in simulation: no threads, no torch, no clock."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.policy import STICKY_S, Waiting, pick

KEYS = st.sampled_from(["a", "b", "c"])


def waiting(*, lane: int = 0, key: str = "a", rows: int = 2, served_s: float = 0.0) -> Waiting:
    return Waiting(lane=lane, key=key, rows=rows, served_s=served_s, arrival=lane)


def cap_of(rows: int) -> Callable[[Hashable], int]:
    return lambda _: rows


def test_nothing_waiting_gives_an_empty_batch() -> None:
    assert pick([], cap_of(8)) == []


def test_the_least_served_lane_decides_the_kind_of_batch() -> None:
    slow, quick = waiting(lane=0, key="large", served_s=3.0), waiting(lane=1, key="small", served_s=1.0)
    assert pick([slow, quick], cap_of(8)) == [quick]


def test_equally_served_lanes_go_by_arrival() -> None:
    assert [w.lane for w in pick([waiting(lane=2), waiting(lane=1)], cap_of(2))] == [1]


def test_a_question_larger_than_the_cap_runs_alone() -> None:
    assert [w.lane for w in pick([waiting(lane=0, rows=6), waiting(lane=1)], cap_of(4))] == [0]


@given(st.lists(st.tuples(KEYS, st.integers(1, 6), st.floats(0, 10)), min_size=1, max_size=30), st.integers(1, 16))
def test_a_batch_has_one_kind_stays_under_its_cap_and_repeats_nobody(
    entries: list[tuple[str, int, float]], cap: int
) -> None:
    questions = [waiting(lane=i, key=key, rows=rows, served_s=s) for i, (key, rows, s) in enumerate(entries)]
    batch = pick(questions, cap_of(cap))
    assert batch
    assert len({w.key for w in batch}) == 1
    assert len({w.lane for w in batch}) == len(batch)
    assert len(batch) == 1 or sum(w.rows for w in batch) <= cap


@dataclass
class Simulated:
    """A lane of `steps` questions of one kind, each row of which costs `row_s` device seconds."""

    key: str
    steps: int
    row_s: float
    arrives_s: float = 0.0
    served_s: float = 0.0
    ended_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)


def simulate(lanes: list[Simulated], cap: int = 8) -> None:
    """Run the lanes to their end on one device; a row costs its lane's `row_s`, in company or alone."""
    now, virtual_s, entered = 0.0, 0.0, set[int]()
    last_served: dict[int, float] = {}
    while any(lane.steps for lane in lanes):
        live = {i: lane for i, lane in enumerate(lanes) if lane.steps and lane.arrives_s <= now}
        if not live:
            now = min(lane.arrives_s for lane in lanes if lane.steps)
            continue
        for i in live.keys() - entered:
            lanes[i].served_s = virtual_s
            last_served[i] = now
        entered |= live.keys()
        batch = pick([waiting(lane=i, key=lane.key, served_s=lane.served_s) for i, lane in live.items()], cap_of(cap))
        virtual_s = max(virtual_s, batch[0].served_s)
        seconds = sum(w.rows * lanes[w.lane].row_s for w in batch)
        now += seconds
        for w in batch:
            lane = lanes[w.lane]
            lane.gaps_s.append(now - last_served[w.lane])
            last_served[w.lane] = now
            lane.served_s += seconds / len(batch)
            lane.steps -= 1
            if not lane.steps:
                lane.ended_s = now


def test_a_small_picture_is_not_held_up_behind_a_long_one() -> None:
    long, small = Simulated("large", 50, 1.0), Simulated("small", 20, 0.01, arrives_s=10.0)
    simulate([long, small])
    assert small.ended_s is not None
    # Alone it takes 0.4 s. It may wait for the step that runs when it comes, and for one more.
    assert small.ended_s - small.arrives_s < 0.4 + 2 * 2.0


def test_a_long_picture_goes_on_among_a_stream_of_small_ones() -> None:
    long = Simulated("large", 10, 1.0)
    stream = [Simulated("small", 20, 0.02, arrives_s=1.0 * i) for i in range(200)]
    simulate([long, *stream])
    assert long.ended_s is not None
    assert long.ended_s < 20.0 / (1 - 0.8), "it gets what the stream leaves of the device, at least"
    assert max(long.gaps_s) < 20


def test_lanes_of_one_kind_advance_together() -> None:
    lanes = [Simulated("a", 20, 0.1) for _ in range(4)]
    simulate(lanes)
    assert len({lane.ended_s for lane in lanes}) == 1


def test_more_lanes_than_a_batch_holds_take_turns() -> None:
    lanes = [Simulated("a", 20, 0.1) for _ in range(10)]
    simulate(lanes, cap=8)
    ends = [lane.ended_s or 0 for lane in lanes]
    assert max(ends) - min(ends) < 0.15 * max(ends)


def lane(number: int, weights: Hashable, served_s: float) -> Waiting:
    return Waiting(lane=number, key=weights, rows=1, served_s=served_s, arrival=number, weights=weights)


def test_the_device_stays_with_the_weights_in_it_until_another_lane_is_well_behind() -> None:
    for behind, chosen in ((STICKY_S / 2, 0), (STICKY_S * 2, 1)):
        waiting = [lane(0, "here", served_s=behind), lane(1, "elsewhere", served_s=0.0)]
        assert [w.lane for w in pick(waiting, lambda _: 8, "here")] == [chosen]


def test_a_question_to_which_weights_do_not_matter_changes_none() -> None:
    waiting = [lane(0, None, served_s=0.5), lane(1, "elsewhere", served_s=0.0)]
    assert [w.lane for w in pick(waiting, lambda _: 8, "here")] == [0]


@given(st.lists(st.floats(0.01, 0.4), min_size=2, max_size=6), st.integers(0, 5))
def test_no_lane_waits_longer_than_the_others_may_run_ahead(costs_s: list[float], present: int) -> None:
    """Every lane needs weights of its own; whoever is served pays; nobody falls behind without bound."""
    served = [0.0] * len(costs_s)
    weights: int = present % len(costs_s)
    changes = 0
    for _ in range(400):
        [chosen] = pick([lane(i, i, s) for i, s in enumerate(served)], lambda _: 1, weights)
        changes += chosen.lane != weights
        weights = chosen.lane
        served[chosen.lane] += costs_s[chosen.lane]
        assert max(served) - min(served) <= STICKY_S + max(costs_s) + 1e-9
    assert changes <= 2 + sum(served) / STICKY_S * len(costs_s)
