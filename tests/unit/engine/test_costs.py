"""Batches grow to the knee of the measured throughput curve and no further."""

from collections.abc import Callable

import pytest

from darkroom.engine.costs import MOST_KINDS, PIXEL_S, REVISIT_AFTER, TRIALS, BatchCosts, Kind, Table
from darkroom.jobs.effort import Effort

KIND = Kind("denoise", "mini", 256)


def serve(costs: BatchCosts, seconds: Callable[[int], float], batches: int = 60) -> int:
    """Let a saturated server run batches at the cap; its final cap."""
    for _ in range(batches):
        rows = costs.cap(KIND)
        costs.observe(KIND, rows, seconds(rows))
    return costs.cap(KIND)


def test_batches_of_an_unknown_kind_start_small_and_double_while_it_pays() -> None:
    costs = BatchCosts(max_rows=32)
    assert costs.cap(KIND) == 2
    assert serve(costs, lambda _: 0.01) == 32


@pytest.mark.parametrize("knee", [2, 4, 8, 16])
def test_the_cap_settles_at_the_knee(knee: int) -> None:
    costs = BatchCosts(max_rows=64)
    assert serve(costs, lambda rows: max(rows, knee) * 0.01) == knee


def test_a_linear_device_gains_nothing_from_batches() -> None:
    assert serve(BatchCosts(max_rows=16), lambda rows: rows * 0.01) == 2


def test_one_slow_batch_does_not_lower_the_cap() -> None:
    costs = BatchCosts(max_rows=8)
    for rows in (2, 4, 8):
        for _ in range(TRIALS):
            costs.observe(KIND, rows, 0.01)
    costs.observe(KIND, 8, 5.0)
    assert costs.cap(KIND) == 8


def test_a_size_that_was_unlucky_is_tried_again_later() -> None:
    costs = BatchCosts(max_rows=4)
    for _ in range(TRIALS):
        costs.observe(KIND, 2, 0.01)
        costs.observe(KIND, 4, 1.0)
    assert costs.cap(KIND) == 2
    for _ in range(REVISIT_AFTER):
        costs.observe(KIND, 2, 0.02)
    assert costs.cap(KIND) == 4


def test_what_did_not_fit_the_device_is_not_tried_again() -> None:
    costs = BatchCosts(max_rows=16)
    costs.shrink(KIND, 12)
    assert serve(costs, lambda _: 0.01) == 6
    assert serve(BatchCosts(max_rows=16), lambda _: 0.01) == 16


def learnt(costs: BatchCosts) -> dict[Kind, Table]:
    """What is kept of them."""
    found: dict[Kind, Table] = {}
    costs._keep = found.update
    costs.save()
    return found


@pytest.mark.parametrize("knee", [2, 8, 64])
def test_a_knee_is_known_after_a_restart(knee: int) -> None:
    costs = BatchCosts(max_rows=64)
    serve(costs, lambda rows: max(rows, knee) * 0.01)
    assert BatchCosts(64, learnt(costs)).cap(KIND) == costs.cap(KIND) == knee


def test_what_was_tried_too_seldom_is_not_kept() -> None:
    costs = BatchCosts(max_rows=64)
    for _ in range(TRIALS - 1):
        costs.observe(KIND, 2, 1.0)
    assert learnt(costs) == {}


def test_kept_costs_give_way_to_new_ones() -> None:
    costs = BatchCosts(64, {KIND: {1: 0.01, 2: 0.005, 4: 0.0025}})
    assert costs.cap(KIND) == 8
    for _ in range(20):
        costs.observe(KIND, 4, 4 * 0.02)
    assert costs.cap(KIND) == 2


def test_only_so_many_kinds_are_remembered_and_the_last_of_them() -> None:
    costs = BatchCosts(max_rows=2)
    for number in range(MOST_KINDS + 9):
        for _ in range(TRIALS):
            costs.observe(Kind("decode", "mini", number), 1, 1.0)
    assert [kind.pixels for kind in learnt(costs)] == list(range(9, MOST_KINDS + 9))


def test_work_is_expected_to_take_what_its_like_took() -> None:
    costs = BatchCosts(max_rows=8)
    efforts = [Effort(checkpoint="mini", pixels=512, inputs=10)]
    assert costs.expected_s(efforts) == pytest.approx(10 * 512 * PIXEL_S)
    costs.observe(Kind("denoise", "large", 4096), 2, 2.0)
    assert costs.expected_s(efforts) == pytest.approx(10 * 512 / 4096), "as another checkpoint's, until there is better"
    costs.observe(KIND, 2, 0.5)
    assert costs.expected_s(efforts) == pytest.approx(10 * 2 * 0.25), "as the same checkpoint's at another size"
    costs.observe(Kind("denoise", "mini", 512), 1, 0.3)
    assert costs.expected_s(efforts) == pytest.approx(3.0)
