"""The batching policy, settled in simulation: no threads, no torch, no clock."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

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
    is_usual,
    linger_s,
    pick,
    tenure_s,
)

KEYS = st.sampled_from(["a", "b", "c"])


def waiting(*, lane: int = 0, key: str = "a", rows: int = 2, level: float = 0.0) -> Waiting:
    return Waiting(lane=lane, key=key, rows=rows, level=level, arrival=lane)


def cap_of(rows: int) -> Callable[[Hashable], int]:
    return lambda _: rows


def test_nothing_waiting_gives_an_empty_batch() -> None:
    assert pick([], cap_of(8)) == []


def test_the_lowest_lane_decides_the_kind_of_batch() -> None:
    slow, quick = waiting(lane=0, key="large", level=3.0), waiting(lane=1, key="small", level=1.0)
    assert pick([slow, quick], cap_of(8)) == [quick]


def test_lanes_of_one_level_go_by_arrival() -> None:
    assert [w.lane for w in pick([waiting(lane=2), waiting(lane=1)], cap_of(2))] == [1]


def test_a_question_larger_than_the_cap_runs_alone() -> None:
    assert [w.lane for w in pick([waiting(lane=0, rows=6), waiting(lane=1)], cap_of(4))] == [0]


@given(st.lists(st.tuples(KEYS, st.integers(1, 6), st.floats(0, 10)), min_size=1, max_size=30), st.integers(1, 16))
def test_a_batch_has_one_kind_stays_under_its_cap_and_repeats_nobody(
    entries: list[tuple[str, int, float]], cap: int
) -> None:
    questions = [waiting(lane=i, key=key, rows=rows, level=s) for i, (key, rows, s) in enumerate(entries)]
    batch = pick(questions, cap_of(cap))
    assert batch
    assert len({w.key for w in batch}) == 1
    assert len({w.lane for w in batch}) == len(batch)
    assert len(batch) == 1 or sum(w.rows for w in batch) <= cap
    assert len(batch) == 1 or is_usual(sum(w.rows for w in batch))


def test_a_batch_has_a_usual_number_of_rows_and_who_is_left_out_comes_next() -> None:
    assert [rows for rows in range(25) if is_usual(rows)] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    five = [waiting(lane=n) for n in range(5)]
    assert [w.lane for w in pick(five, cap_of(16))] == [0, 1, 2, 3]
    assert [w.lane for w in pick([waiting(lane=0, rows=5), waiting(lane=1)], cap_of(16))] == [0]
    assert [w.lane for w in pick([waiting(lane=0, rows=3), waiting(lane=1)], cap_of(16))] == [0]


def test_who_would_share_an_evaluation_that_has_room_has_the_text_encoded_first() -> None:
    first = Waiting(lane=0, key="step", rows=2, level=0.0, arrival=0, stage="evaluating", company="small")
    newcomer = Waiting(lane=1, key="text", rows=1, level=9.0, arrival=1, stage="beginning", company="small")
    assert pick([first, newcomer], cap_of(8)) == [newcomer]
    assert pick([first, newcomer], cap_of(2)) == [first], "there is no room"
    for other in (
        replace(newcomer, company="large"),
        replace(newcomer, change_s=1.0),
        replace(newcomer, stage="other"),
    ):
        assert pick([first, other], cap_of(8), lambda _: 0.0) == [first]
    assert pick([replace(first, stage="other"), newcomer], cap_of(8)) == [replace(first, stage="other")]
    due = replace(first, change_s=1.0)
    assert pick([due, newcomer], cap_of(8), lambda _: math.inf) == [due]


def lane(number: int, change_s: float = 0.0, level: float = 0.0) -> Waiting:
    return Waiting(lane=number, key=number, rows=1, level=level, arrival=number, change_s=change_s)


def test_weights_are_changed_only_after_work_that_is_worth_it() -> None:
    here, elsewhere = lane(0, level=9.0), lane(1, change_s=2.0)
    for worked_s, chosen in ((tenure_s(2.0) - 0.1, here), (tenure_s(2.0), elsewhere)):
        assert pick([here, elsewhere], cap_of(8), lambda _, worked_s=worked_s: worked_s) == [chosen]  # type: ignore[misc]


def test_where_nothing_is_in_place_a_change_of_a_moment_comes_before_a_long_one() -> None:
    assert [w.lane for w in pick([lane(0, 5.0), lane(1, 0.1), lane(2, 0.08)], cap_of(8), lambda _: 0.0)] == [1]
    assert [w.lane for w in pick([lane(0, 5.0), lane(1, 4.0)], cap_of(8), lambda _: 0.0)] == [0]


def test_of_changes_of_one_size_the_lowest_lane_has_the_next() -> None:
    """Else two models that are read in a second could keep a third from its turn that takes two."""
    waiting = [lane(0, 2.0), lane(1, 1.0, level=1.0), lane(2, level=2.0)]
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
