"""The order of lanes, settled in simulation, with costs of batches as they were recorded on a machine."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.engine.sojourns import OLDEST_SHARE
from tests.unit.engine.simulation import Costs, Engine, InOrder, Simulated, arrivals, percentile, simulate

RECORDED: dict[str, dict[str, dict[str, float]]] = json.loads(
    (Path(__file__).parent / "recorded_costs.json").read_text()
)["row_s"]
"""Seconds per row by model, latent pixels and rows of a batch, on two cores with AMX."""


def recorded(model: str) -> Costs:
    """A batch costs what its rows did at the nearest number of them that was recorded."""
    tables = {int(pixels): {int(r): s for r, s in table.items()} for pixels, table in RECORDED[model].items()}

    def seconds(pixels: int, rows: int) -> float:
        table = tables[pixels]
        return rows * table[min(table, key=lambda size: abs(size - rows))]

    return seconds


def linear(pixels: int, rows: int) -> float:
    """A device that gains nothing from batches."""
    return 0.05 * rows


def ends_of_equal_shares(lanes: Sequence[Simulated], costs: Costs) -> list[float]:
    """When lanes would be done if all that are there shared the device alike at every moment."""
    left = [lane.steps * costs(lane.pixels, 2) for lane in lanes]
    ends, now = [0.0] * len(lanes), 0.0
    while any(left):
        live = [i for i, lane in enumerate(lanes) if left[i] and lane.arrives_s <= now]
        coming = [lane.arrives_s for i, lane in enumerate(lanes) if left[i] and lane.arrives_s > now]
        until_s = min(coming) - now if coming else float("inf")
        step_s = min([until_s, *(left[i] * len(live) for i in live)])
        now += step_s
        for i in live:
            left[i] = 0.0 if left[i] - step_s / len(live) < 1e-9 else left[i] - step_s / len(live)
            ends[i] = now if not left[i] else 0.0
    return ends


LANES = st.lists(
    st.builds(Simulated, steps=st.integers(1, 40), arrives_s=st.floats(0, 20), thought=st.just(1.0)),
    min_size=1,
    max_size=12,
).map(lambda lanes: sorted(lanes, key=lambda lane: lane.arrives_s))


@settings(max_examples=100, deadline=None)
@given(LANES)
def test_nobody_is_done_later_than_if_all_shared_alike(lanes: list[Simulated]) -> None:
    simulate(lanes, Engine(linear, max_rows=2))
    for lane, end_s in zip(lanes, ends_of_equal_shares(lanes, linear), strict=True):
        step_s = linear(256, 2)
        longest_s = (end_s - lane.arrives_s + 2 * step_s) / (1 - OLDEST_SHARE) + step_s
        assert lane.latency_s <= longest_s, "but for the share of the oldest, the step that runs, and one more"


@settings(max_examples=100, deadline=None)
@given(LANES, st.lists(st.floats(0.1, 10), min_size=12, max_size=12))
def test_misjudged_lanes_are_done_too_and_within_bounds(lanes: list[Simulated], factors: list[float]) -> None:
    for lane, factor in zip(lanes, factors, strict=False):
        lane.thought = factor
    simulate(lanes, Engine(linear, max_rows=2))
    total_s = sum(lane.steps * linear(256, 2) for lane in lanes)
    assert max(lane.ended_s for lane in lanes) <= max(lane.arrives_s for lane in lanes) + total_s + 1e-6


def test_a_quick_picture_passes_a_long_one_at_its_next_step() -> None:
    long, quick = Simulated(50), Simulated(4, arrives_s=1.03)
    simulate([long, quick], Engine(linear, max_rows=2))
    assert quick.latency_s < 6 * linear(256, 2) + 1e-6


def test_long_pictures_are_not_stretched_by_each_other() -> None:
    lanes = [Simulated(50) for _ in range(4)]
    simulate(lanes, Engine(linear, max_rows=2))
    assert [round(lane.ended_s) for lane in lanes] == [5, 10, 15, 20]


def test_a_long_picture_goes_on_among_a_stream_of_quick_ones() -> None:
    """The stream takes four fifths of the device, for ever."""
    long = Simulated(100)
    stream = [Simulated(4, arrives_s=0.5 * i) for i in range(1, 400)]
    simulate([long, *stream], Engine(linear, max_rows=2))
    assert long.ended_s <= 10 / (1 - 0.8) + 1


def test_the_oldest_has_its_share_whatever_comes() -> None:
    """The stream takes twice as much as there is."""
    long = Simulated(100)
    stream = [Simulated(4, arrives_s=0.2 * i) for i in range(1, 400)]
    simulate([long, *stream], Engine(linear, max_rows=2))
    assert long.ended_s <= 10 / OLDEST_SHARE + 1


def test_one_that_takes_ten_times_longer_than_thought_holds_nobody_up() -> None:
    wrong = Simulated(500, thought=0.1)
    quick = [Simulated(4, arrives_s=2.0 * i) for i in range(1, 10)]
    simulate([wrong, *quick], Engine(linear, max_rows=2))
    assert max(lane.latency_s for lane in quick) < 2.5


def test_lanes_of_one_kind_advance_together_where_that_is_quicker() -> None:
    lanes = [Simulated(20) for _ in range(4)]
    simulate(lanes, Engine(lambda _, rows: 0.1, max_rows=8))
    assert max(lane.ended_s for lane in lanes) - min(lane.ended_s for lane in lanes) < 1.5


def test_who_comes_later_shares_batches_with_who_was_there() -> None:
    """A pass of eight takes as long as one of two; pictures come one step after the other."""
    lanes = [Simulated(20, arrives_s=0.1 * i) for i in range(8)]
    engine = Engine(lambda _, rows: 0.1, max_rows=16)
    simulate([Simulated(20) for _ in range(8)], engine)  # what passes cost is known now
    simulate(lanes, engine)
    assert max(lane.latency_s for lane in lanes) < 1.2 * 20 * 0.1


@pytest.mark.parametrize("model", RECORDED)
@pytest.mark.parametrize("seed", range(3))
def test_quick_requests_among_long_ones_are_served_in_a_tenth_of_the_time(model: str, seed: int) -> None:
    """At four fifths of what one at a time can do; and long ones take no fifth longer."""
    costs = recorded(model)
    pixels = int(max(RECORDED[model], key=int))
    one_s = (4 + 50) / 2 * costs(pixels, 2)
    lanes, others = (arrivals(1500, (4, 50), (pixels,), 0.8 / one_s, seed) for _ in range(2))
    simulate(lanes, Engine(costs))
    simulate(others, InOrder(costs))
    for steps, goal in ((4, 0.1), (50, 1.2)):
        ours, theirs = (percentile([x.latency_s for x in some if x.steps == steps], 0.95) for some in (lanes, others))
        assert ours <= goal * theirs


@pytest.mark.parametrize("model", RECORDED)
def test_nearly_full_load_of_mixed_requests_is_borne(model: str) -> None:
    """At 95 % of the throughput that was reached with everything at hand from the beginning."""
    costs = recorded(model)
    sizes = [int(pixels) for pixels in RECORDED[model]]
    everything = arrivals(400, (4, 8, 20, 30, 50), sizes, 1e9, 1)
    simulate(everything, Engine(costs))
    capacity = len(everything) / max(lane.ended_s for lane in everything)
    spread = arrivals(400, (4, 8, 20, 30, 50), sizes, 0.95 * capacity, 1)
    simulate(spread, Engine(costs))
    alone_s = 50 * costs(max(sizes), 2)
    assert percentile([lane.latency_s for lane in spread], 0.99) < 40 * alone_s
    assert percentile([lane.latency_s for lane in spread], 0.5) < 6 * alone_s
