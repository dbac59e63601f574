"""Batches grow to the knee of the measured throughput curve and no further."""

from collections.abc import Callable

import pytest

from darkroom.engine.costs import REVISIT_AFTER, TRIALS, BatchCosts


def serve(costs: BatchCosts, seconds: Callable[[int], float], batches: int = 60) -> int:
    """Let a saturated server run batches at the cap; its final cap."""
    for _ in range(batches):
        rows = costs.cap("k")
        costs.observe("k", rows, seconds(rows))
    return costs.cap("k")


def test_batches_of_an_unknown_kind_start_small_and_double_while_it_pays() -> None:
    costs = BatchCosts(max_rows=32)
    assert costs.cap("k") == 2
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
            costs.observe("k", rows, 0.01)
    costs.observe("k", 8, 5.0)
    assert costs.cap("k") == 8


def test_a_size_that_was_unlucky_is_tried_again_later() -> None:
    costs = BatchCosts(max_rows=4)
    for _ in range(TRIALS):
        costs.observe("k", 2, 0.01)
        costs.observe("k", 4, 1.0)
    assert costs.cap("k") == 2
    for _ in range(REVISIT_AFTER):
        costs.observe("k", 2, 0.02)
    assert costs.cap("k") == 4


def test_what_did_not_fit_the_device_is_not_tried_again() -> None:
    costs = BatchCosts(max_rows=16)
    costs.shrink("k", 12)
    assert serve(costs, lambda _: 0.01) == 6
    assert serve(BatchCosts(max_rows=16), lambda _: 0.01) == 16
