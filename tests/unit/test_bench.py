"""The table of a measurement."""

from bench.load import orders
from bench.report import spread, table


def test_a_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0], " s") == "2.00 s (1.00 to 3.00)"


def test_the_orders_differ_in_seed_and_are_the_same_every_time() -> None:
    assert orders(20, 20, 128) == orders(20, 20, 128)
    assert len({order.seed for order in orders(20, 20, 128)}) == 20


def test_the_table_names_the_work_and_the_machine() -> None:
    found = {
        "when": "2026-01-01T00:00:00+00:00",
        "asked": {"steps": "20", "size": "128", "clients": "8"},
        "rounds": [{"darkroom": 8.0, "diffusers": 2.0}],
        "ratio": [4.0],
        "solo_s": [0.5],
        "ready_s": 4.0,
        "first_picture_s": 5.0,
        "help_s": 0.3,
        "matmul_gflops": {"float32": 100.0, "bfloat16": 600.0},
        "machine": {"processor": "some processor"},
        "switches": [("warm switch", "7 us, 0.00001 copies")],
    }
    text = table(found)
    assert "| ratio, turn by turn | 4.00 (4.00 to 4.00) |" in text
    assert "8 clients, 20 steps, 128x128 | 8.00 pictures/s" in text
    assert "| warm switch | 7 us, 0.00001 copies |" in text
    assert "- processor: some processor" in text
