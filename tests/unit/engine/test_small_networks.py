"""When the folders of small networks are looked at."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.engine.small_networks import SmallNetworks
from darkroom.nets import shelves
from darkroom.settings import Settings


def put_adapter(folder: Path, name: str, alias: str) -> Path:
    path = folder / "Lora" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.diff": torch.ones(3)}, path, metadata={"ss_output_name": alias})
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An entry for each time that the folders of adapters are read."""
    found: list[object] = []
    read = shelves.adapters

    def counted(*folders: object, **rest: bool) -> list[shelves.SmallFile]:
        found.append(folders)
        return read(*folders, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(shelves, "adapters", counted)
    return found


def test_an_alias_that_means_two_is_known_to_mean_none_without_another_look(
    tmp_path: Path, looks: list[object]
) -> None:
    for name in ("one", "two"):
        put_adapter(tmp_path, name, "shared")
    networks = SmallNetworks(Settings(models_dir=tmp_path, data_dir=tmp_path))
    assert [networks.find_adapter("shared") for _ in range(3)] == [None] * 3
    assert len(looks) == 1


def test_an_alias_that_means_one_again_is_found(tmp_path: Path) -> None:
    gone = [put_adapter(tmp_path, name, "shared") for name in ("one", "two")][1]
    networks = SmallNetworks(Settings(models_dir=tmp_path, data_dir=tmp_path))
    assert networks.find_adapter("shared") is None
    gone.unlink()
    found = networks.find_adapter("shared")
    assert found is not None
    assert found.name == "one"


def test_a_name_that_nothing_has_is_looked_for_in_the_folders(tmp_path: Path, looks: list[object]) -> None:
    networks = SmallNetworks(Settings(models_dir=tmp_path, data_dir=tmp_path))
    assert networks.find_adapter("new") is None
    put_adapter(tmp_path, "new", "new")
    assert networks.find_adapter("new") is not None
    assert networks.find_adapter("new") is not None
    assert len(looks) == 3
