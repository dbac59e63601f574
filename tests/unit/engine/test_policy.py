"""The batching policy, settled in simulation: no threads, no torch, no clock."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.engine.policy import (
    ALIKE,
    LINGERING,
    LONGEST_LINGERING_S,
    LONGEST_TENURE_S,
    PATIENCE,
    Changes,
    Waiting,
    linger_s,
    pick,
    tenure_s,
)

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


def lane(number: int, change_s: float = 0.0, served_s: float = 0.0) -> Waiting:
    return Waiting(lane=number, key=number, rows=1, served_s=served_s, arrival=number, change_s=change_s)


def test_weights_are_changed_only_after_work_that_is_worth_it() -> None:
    here, elsewhere = lane(0, served_s=9.0), lane(1, change_s=2.0)
    for worked_s, chosen in ((tenure_s(2.0) - 0.1, here), (tenure_s(2.0), elsewhere)):
        assert pick([here, elsewhere], cap_of(8), lambda _, worked_s=worked_s: worked_s) == [chosen]  # type: ignore[misc]


def test_where_nothing_is_in_place_a_change_of_a_moment_comes_before_a_long_one() -> None:
    assert [w.lane for w in pick([lane(0, 5.0), lane(1, 0.1), lane(2, 0.08)], cap_of(8), lambda _: 0.0)] == [1]
    assert [w.lane for w in pick([lane(0, 5.0), lane(1, 4.0)], cap_of(8), lambda _: 0.0)] == [0]


def test_of_changes_of_one_size_the_least_served_lane_has_the_next() -> None:
    """Else two models that are read in a second could keep a third from its turn that takes two."""
    waiting = [lane(0, 2.0), lane(1, 1.0, served_s=1.0), lane(2, served_s=2.0)]
    for worked_s, chosen in ((4.0, 2), (8.0, 0)):
        assert [w.lane for w in pick(waiting, cap_of(8), lambda _, worked_s=worked_s: worked_s)] == [chosen]  # type: ignore[misc]


def test_a_long_change_is_waited_for_no_longer_than_the_bound() -> None:
    assert tenure_s(1e6) == LONGEST_TENURE_S
    assert tenure_s(0.0) == 0


def test_work_is_counted_from_the_last_change_of_about_the_same_size() -> None:
    changes = Changes()
    assert changes.worked_since(1.0) == math.inf
    changes.change(5.0)
    changes.work(10.0)
    changes.change(0.1)
    changes.work(1.0)
    assert [changes.worked_since(change_s) for change_s in (0.1, 0.2, 0.3, 5.0, 11.0)] == [
        1.0,
        1.0,
        11.0,
        11.0,
        math.inf,
    ]


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 10)), max_size=60), st.floats(0.01, 10))
def test_work_since_a_change_is_what_the_whole_history_says(history: list[tuple[bool, float]], asked: float) -> None:
    changes, expected = Changes(), math.inf
    for is_change, seconds in history:
        if is_change:
            changes.change(seconds)
            expected = 0.0 if seconds >= ALIKE * asked else expected
        else:
            changes.work(seconds)
            expected += seconds
    assert math.isclose(changes.worked_since(asked), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_the_device_stands_still_for_a_moment_before_a_change_that_is_not_due() -> None:
    waiting = [lane(0, 5.0), lane(1, 8.0)]
    assert math.isclose(linger_s(waiting, lambda _: 0.0, 0.1), LINGERING * 5.0 - 0.1)
    assert linger_s(waiting, lambda _: 0.0, 2.0) == 0
    assert linger_s([lane(0, 1e4)], lambda _: 0.0, 0.0) == LONGEST_LINGERING_S
    assert linger_s([], lambda _: 0.0, 0.0) == 0


def test_nobody_stands_still_while_there_is_something_to_do() -> None:
    assert linger_s([lane(0, 5.0), lane(1)], lambda _: 0.0, 0.0) == 0
    assert linger_s([lane(0, 5.0)], lambda _: tenure_s(5.0), 0.0) == 0


@dataclass
class Device:
    """One set of weights fits into it; having others takes as long as those say. Serves lanes that never end."""

    change_s: dict[int, float]
    present: int | None = None
    now_s: float = 0.0
    changing_s: float = 0.0
    made: int = 0
    changes: Changes = field(default_factory=Changes)

    def serve(self, served_s: list[float], wants: list[int], step_s: list[float]) -> int:
        """Serve one batch; gives the lane that was served."""
        waiting = [
            lane(i, 0.0 if wants[i] == self.present else self.change_s[wants[i]], served)
            for i, served in enumerate(served_s)
        ]
        [chosen] = pick(waiting, cap_of(1), self.changes.worked_since)
        if chosen.change_s:
            self.present = wants[chosen.lane]
            self.now_s += chosen.change_s
            self.changing_s += chosen.change_s
            self.made += 1
            self.changes.change(chosen.change_s)
        seconds = step_s[chosen.lane]
        self.now_s += seconds
        served_s[chosen.lane] += seconds
        self.changes.work(seconds)
        return chosen.lane


CHANGE_S = st.floats(0.05, 12.0)
STEP_S = st.floats(0.2, 2.0)


@settings(max_examples=60)
@given(st.lists(st.tuples(CHANGE_S, STEP_S), min_size=2, max_size=5))
def test_every_model_has_its_turn_within_the_others_tenures(models: list[tuple[float, float]]) -> None:
    """One lane for each model, only one of which fits: nobody waits longer than until all others have caught up and had
    a tenure each; and changes take no more of the time than their tenures allow.
    """
    change_s, step_s = (list(column) for column in zip(*models, strict=True))
    device = Device(dict(enumerate(change_s)))
    served, last = [0.0] * len(models), [0.0] * len(models)
    longest = max(map(tenure_s, change_s)) + max(change_s) + 2 * max(step_s)
    while device.now_s < 200:
        chosen = device.serve(served, list(range(len(models))), step_s)
        assert device.now_s - last[chosen] <= 2 * len(models) * longest
        last[chosen] = device.now_s
        assert max(served) - min(served) <= longest
    shares = [one / tenure_s(one) for one in change_s]
    assert device.changing_s <= sum(change_s) + sum(served) * sum(shares)


def test_two_models_that_do_not_fit_together_take_long_turns() -> None:
    device = Device({0: 2.0, 1: 2.0})
    served, wants = [0.0] * 8, [0, 1] * 4
    while device.now_s < 300:
        device.serve(served, wants, [0.25] * 8)
    assert device.changing_s <= device.now_s / (PATIENCE + 1) + 2.0
    assert max(served) - min(served) <= tenure_s(2.0) + 0.25


def test_adapters_that_change_in_a_moment_do_not_wait_for_a_checkpoint_that_does_not() -> None:
    """Lanes 0 and 1 share a checkpoint with an adapter each; lane 2 needs another checkpoint."""
    changes = Changes()
    changes.change(5.0)
    present, served, first, quick = 0, [0.0] * 3, 0.0, 0
    while first == 0:
        waiting = [lane(i, 5.0 if i == 2 else 0.1 * (i != present), s) for i, s in enumerate(served)]
        [chosen] = pick(waiting, cap_of(1), changes.worked_since)
        if chosen.change_s:
            changes.change(chosen.change_s)
            quick += chosen.lane != 2
            present = chosen.lane
        if chosen.lane == 2:
            first = sum(served)
        served[chosen.lane] += 0.1
        changes.work(0.1)
    assert math.isclose(first, tenure_s(5.0)), "the checkpoint comes when it is due, whatever adapters did"
    assert quick > 20, "and they took turns meanwhile"
