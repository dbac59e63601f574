"""Which networks stay loaded."""

import os
from pathlib import Path

import pytest
import torch

from darkroom.errors import BadModelFile
from darkroom.nets.store import Store
from tests.tiny.checkpoints import write_tiny_checkpoint

SIZE = 20_000_000
CPU = torch.device("cpu")


def names(folder: Path, count: int) -> list[str]:
    return [str(write_tiny_checkpoint(folder, f"m{i}", i)) for i in range(count)]


def test_a_network_is_loaded_once(tmp_path: Path) -> None:
    store = Store(CPU, torch.float32, 10 * SIZE)
    (name,) = names(tmp_path, 1)
    assert store.get(name, None) is store.get(name, None)


def test_the_least_recently_used_one_goes_first(tmp_path: Path) -> None:
    first, second, third = names(tmp_path, 3)
    store = Store(CPU, torch.float32, 10 * SIZE)
    one, two = store.get(first, None), store.get(second, None)
    store = Store(CPU, torch.float32, one.nbytes + two.nbytes)
    one, two = store.get(first, None), store.get(second, None)
    assert store.get(first, None) is one
    store.get(third, None)
    assert store.nbytes <= one.nbytes + two.nbytes
    assert store.get(first, None) is one
    assert store.get(second, None) is not two


def test_a_network_larger_than_the_budget_is_served_alone(tmp_path: Path) -> None:
    first, second = names(tmp_path, 2)
    store = Store(CPU, torch.float32, 1)
    one = store.get(first, None)
    assert store.get(first, None) is one
    two = store.get(second, None)
    assert store.nbytes == two.nbytes


def test_a_replaced_file_is_loaded_again(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    store = Store(CPU, torch.float32, 10 * SIZE)
    before = store.get(name, None)
    os.utime(name, (1, 1))
    assert store.get(name, None) is not before


def test_a_changed_yaml_counts_as_a_change(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    config = Path(name).with_suffix(".yaml")
    store = Store(CPU, torch.float32, 10 * SIZE)
    store.get(name, str(config))
    config.write_text(config.read_text().replace("parameterization: eps", "parameterization: v"))
    assert store.get(name, str(config)).prediction == "v"


def test_a_file_that_vanished_while_loaded_is_an_error(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    store = Store(CPU, torch.float32, 10 * SIZE)
    store.get(name, None)
    Path(name).unlink()
    with pytest.raises(BadModelFile):
        store.get(name, None)


def test_a_bad_file_costs_no_loaded_network(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nonsense")
    store = Store(CPU, torch.float32, 10 * SIZE)
    one = store.get(name, None)
    with pytest.raises(BadModelFile):
        store.get(str(bad), None)
    assert store.get(name, None) is one


def test_clearing_drops_everything(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    store = Store(CPU, torch.float32, 10 * SIZE)
    store.get(name, None)
    store.clear()
    assert store.nbytes == 0
