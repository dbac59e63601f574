"""What a measurement is made of, and what is told of it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from darkroom.bench import command, scenarios
from darkroom.bench.orders import Order, arriving, mixed, orders, percentile
from darkroom.bench.rows import Row, as_json, figure, page, ratios, table
from darkroom.bench.subjects import run_all
from darkroom.bench.worker import QUIET_ROUNDS, settle
from darkroom.cli import app


def test_the_orders_differ_in_seed_and_are_the_same_every_time() -> None:
    assert orders(20, 20, 128) == orders(20, 20, 128)
    assert len({order.seed for order in orders(20, 20, 128)}) == 20
    assert mixed(50, (4, 50), (64, 128)) == mixed(50, (4, 50), (64, 128))


def test_arrivals_are_in_order_and_about_as_many_per_second_as_asked() -> None:
    times = [order.at_s for order in arriving(orders(2000, 4, 64), 5.0)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2000 / 5, rel=0.1)


def test_an_order_survives_the_way_to_another_process() -> None:
    [order] = arriving(mixed(1, (4,), (64,)), 1.0)
    assert Order(**json.loads(json.dumps(order.as_dict()))) == order


@pytest.mark.parametrize(("share", "value"), [(50, 2), (95, 4), (100, 4), (25, 1), (1, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile([4, 2, 1, 3], share) == value


def test_clients_ask_for_one_picture_after_another_and_arrivals_at_their_time() -> None:
    wanted = arriving(orders(5, 1, 64), 50.0)
    asked: list[float] = []
    seconds = run_all(lambda order: asked.append(order.at_s), wanted, 0)
    assert sorted(asked) == [order.at_s for order in wanted]
    assert max(seconds) < 5
    assert len(run_all(lambda order: None, wanted, 2)) == 5


def test_a_figure_has_three_digits() -> None:
    assert [figure(value) for value in (1234.5, 12.345, 0.00123456, 0)] == ["1234", "12.3", "0.00123", "0"]


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_median() -> None:
    row = ratios("ours by theirs", [2.0, 9.0, 4.0], [1.0, 3.0, 1.0], at_least=2.5)
    assert row.values == (2.0, 3.0, 4.0)
    assert (row.spread, row.goal, row.reached) == ("3 (2 to 4)", "≥ 2.5", True)
    assert ratios("ours by theirs", [2.0], [1.0], at_most=1.9).reached is False


def test_what_could_not_be_measured_is_said_and_not_judged() -> None:
    row = Row(name="ours by theirs", note="theirs is not installed", at_least=5.0)
    assert row.reached is None
    assert "| ours by theirs | – theirs is not installed | ≥ 5 |  |" in table([row])


def test_a_page_names_the_machine_and_every_scenario() -> None:
    found = {"solo": [Row(name="a picture", values=(1.5, 1.0, 2.0), unit="s")], "memory": [Row(name="growth")]}
    text = page("2026-01-01", {"processor": "some processor"}, found)
    assert "- processor: some processor" in text
    assert "## solo" in text
    assert "| a picture | 1.5 s (1 to 2) |" in text
    assert json.loads(json.dumps(as_json(found)))["solo"][0]["values"] == [1.5, 1.0, 2.0]


def test_the_command_names_the_scenarios_that_there_are() -> None:
    assert tuple(scenarios.SCENARIOS) == command.SCENARIOS


def test_an_unknown_scenario_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "--scenario", "none such", "--output", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_work_goes_on_until_nothing_more_is_compiled_for_it() -> None:
    begun: list[int] = []
    compiling = iter([False, True, True, *[False] * 100])
    settle(lambda: begun.append(1), lambda: next(compiling))
    assert len(begun) == 2 + QUIET_ROUNDS
