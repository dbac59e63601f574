"""Which networks stay loaded."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from weakref import ref

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.errors import BadModelFile
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import Store
from darkroom.nets.text import Text
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae

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


def held(store: Store, filenames: Sequence[str]) -> list[bool]:
    return [store.load_s(name) == 0 for name in filenames]


def test_a_file_that_cannot_be_used_drops_nothing_however_little_room_there_is(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    bad = tmp_path / "bad.safetensors"
    weights = load_file(name)
    save_file({key: value for key, value in weights.items() if not key.endswith("decoder.conv_out.bias")}, bad)
    store = Store(CPU, torch.float32, 1)
    one = store.get(name, None)
    nbytes = store.nbytes
    with pytest.raises(BadModelFile, match=r"bad\.safetensors: 1 tensors are missing: .*decoder.conv_out.bias"):
        store.get(str(bad), None)
    assert store.nbytes == nbytes == one.nbytes
    assert store.get(name, None) is one


def test_a_file_that_cannot_be_used_is_not_read_again_before_it_changes(tmp_path: Path) -> None:
    good, bad = Path(names(tmp_path, 1)[0]), tmp_path / "bad.safetensors"
    bad.write_bytes(b"nonsense")
    store = Store(CPU, torch.float32, 10 * SIZE)
    said = []
    for _ in range(2):
        with pytest.raises(BadModelFile, match=r"bad\.safetensors") as caught:
            store.get(str(bad), None)
        said.append(str(caught.value))
    assert said[0] == said[1]
    shutil.copy(good, bad)
    assert store.get(str(bad), None).nbytes > 0


def test_a_file_that_changed_under_a_loaded_network_leaves_it_as_it_is(tmp_path: Path) -> None:
    """Written over in place, even cut short: nothing of a loaded network lies in the file any more."""
    (name,) = names(tmp_path, 1)
    adapter = write_tiny_lora(tmp_path / "Lora", "one")
    store = Store(CPU, torch.float32, 10 * SIZE)
    network = store.get(name, None)
    _, file = store.get_adapter(str(adapter))
    weights = [value.clone() for value in tensors(network)]
    layers = {key: {part: value.clone() for part, value in parts.items()} for key, parts in file.layers.items()}
    for path in (Path(name), adapter):
        with path.open("r+b") as content:
            content.seek(path.stat().st_size // 2)
            content.write(b"\xff" * 4096)
            content.truncate(path.stat().st_size // 2 + 4096)
    assert store.find(name) is network
    assert all(torch.equal(a, b) for a, b in zip(weights, tensors(network), strict=True))
    assert all(
        torch.equal(value, layers[key][part]) for key, parts in file.layers.items() for part, value in parts.items()
    )
    with pytest.raises(BadModelFile):
        store.get(name, None)
    with pytest.raises(BadModelFile):
        store.get_adapter(str(adapter))


def tensors(network: Network) -> list[torch.Tensor]:
    modules = (network._text.module, network._unet, network._vae.module)
    return [value for module in modules for value in module.state_dict().values()]


def test_all_that_is_loaded_counts(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    store = Store(CPU, torch.float32, 10 * SIZE)
    network = store.get(name, None)
    vae = store.get_vae(str(write_tiny_vae(tmp_path / "v.safetensors")), 0.18215)
    _, file = store.get_adapter(str(write_tiny_lora(tmp_path / "Lora", "one")))
    assert store.nbytes == network.nbytes + vae.nbytes + file.nbytes


def test_a_small_file_makes_room_for_itself_but_not_at_the_cost_of_the_network_it_is_for(tmp_path: Path) -> None:
    first, second = names(tmp_path, 2)
    vae = str(write_tiny_vae(tmp_path / "v.safetensors"))
    store = Store(CPU, torch.float32, 10 * SIZE)
    budget = store.get(first, None).nbytes + store.get(second, None).nbytes
    store = Store(CPU, torch.float32, budget)
    store.get(first, None)
    two = store.get(second, None)
    loaded = store.get_vae(vae, 0.18215)
    assert held(store, [first, second]) == [False, True]
    assert store.nbytes == two.nbytes + loaded.nbytes


def test_the_time_that_a_change_takes_is_guessed_then_known_and_none_for_what_is_loaded(tmp_path: Path) -> None:
    first, second = names(tmp_path, 2)
    store = Store(CPU, torch.float32, 1)
    guessed = store.load_s(first)
    assert guessed > 0
    store.get(first, None)
    assert store.load_s(first) == 0
    store.get(second, None)
    assert 0 < store.load_s(first) != guessed
    assert store.load_s(str(tmp_path / "nowhere")) > 0


def test_what_was_dropped_is_freed_at_once(tmp_path: Path) -> None:
    """No cycle of references keeps a network until the collector comes by."""
    first, second = names(tmp_path, 2)
    store = Store(CPU, torch.float32, 1)
    network = store.get(first, None)
    network.variant = Variant()
    network.encode_text([Text(chunks=[[49406] + [49407] * 76], weights=[[1.0] * 77])])
    watched = [ref(network), ref(network._unet), ref(network._vae.module), ref(network._text.module)]
    del network
    store.get(second, None)
    assert [one() for one in watched] == [None] * 4


def test_what_is_no_longer_in_use_goes_when_the_store_settles(tmp_path: Path) -> None:
    (name,) = names(tmp_path, 1)
    store = Store(CPU, torch.float32, 1)
    network = store.get(name, None)
    store.get_vae(str(write_tiny_vae(tmp_path / "v.safetensors")), 0.18215)
    assert store.get(name, None) is network
    store.settle()
    assert store.nbytes == network.nbytes
