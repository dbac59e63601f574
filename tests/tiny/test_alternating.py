"""Clients that take turns with checkpoints and adapters, with memory for one checkpoint and with memory for both."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.engine.client import result
from darkroom.engine.local import LocalEngine
from darkroom.jobs.spec import Adapter, JobSpec, Picture
from darkroom.settings import Settings
from tests.unit.engine.fake_runner import make_spec

CHECKPOINTS = ("one.safetensors", "two.safetensors")
SETS = ((Adapter(name="soft"),), (Adapter(name="hard", unet=0.8, text=0.5), Adapter(name="soft", unet=0.3)))
ROOM_FOR_ONE, ROOM_FOR_BOTH = 0.001, 2.0
UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, the same with changed weights, and two adapters for them."""
    folder = tmp_path_factory.mktemp("models")
    checkpoints = folder / "Stable-diffusion"
    checkpoints.mkdir()
    (folder / "Lora").mkdir()
    with as_file(files("darkroom") / "mini") as mini:
        copy(mini / "darkroom-mini.safetensors", checkpoints / "one.safetensors")
        for name in ("one", "two"):
            copy(mini / "darkroom-mini.yaml", checkpoints / f"{name}.yaml")
    weights = load_file(checkpoints / "one.safetensors")
    torch.manual_seed(0)
    changed = {
        name: value + 0.05 * value.float().std().to(value) * torch.randn_like(value) for name, value in weights.items()
    }
    save_file(changed, checkpoints / "two.safetensors")
    projections = [name for name in weights if name.startswith(UNET) and ".attn" in name and name.endswith(".weight")]
    for seed, name in enumerate(("soft", "hard")):
        torch.manual_seed(seed)
        save_file(dict(low_rank(projections, weights)), folder / "Lora" / f"{name}.safetensors")
    return folder


def low_rank(names: Sequence[str], weights: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in names:
        layer = "lora_unet_" + name.removeprefix(UNET).removesuffix(".weight").replace(".", "_")
        rows, columns = weights[name].shape[:2]
        yield f"{layer}.lora_up.weight", torch.randn(rows, 2) * 0.3
        yield f"{layer}.lora_down.weight", torch.randn(2, columns) / columns**0.5


def engine_with(models: Path, folder: Path, room_gb: float) -> LocalEngine:
    return LocalEngine(Settings(data_dir=folder, models_dir=models, device="cpu", exact=True, model_memory_gb=room_gb))


def asked(checkpoint: str, adapters: tuple[Adapter, ...] = (), seed: int = 1) -> JobSpec:
    spec = make_spec("puppy dog", seeds=(seed,), steps=2, size=64)
    return replace(spec, checkpoint=checkpoint, adapters=adapters)


async def client(engine: LocalEngine, specs: Sequence[JobSpec]) -> list[Picture]:
    """One request after the other."""
    return [(await result(engine, engine.submit(spec))).pictures[0].picture for spec in specs]


async def clients(engine: LocalEngine, *wanted: Sequence[JobSpec]) -> list[list[Picture]]:
    return list(await asyncio.gather(*(client(engine, specs) for specs in wanted)))


@pytest.mark.parametrize("room_gb", [ROOM_FOR_ONE, ROOM_FOR_BOTH])
@pytest.mark.slow
def test_a_hundred_requests_in_turn_give_the_pictures_that_each_gives_alone(
    models: Path, tmp_path: Path, room_gb: float
) -> None:
    different = [asked(name, adapters, seed) for seed, adapters, name in product((1, 2), SETS, CHECKPOINTS)]
    alone = []
    for spec in different:
        engine = engine_with(models, tmp_path, ROOM_FOR_ONE)
        alone += asyncio.run(client(engine, [spec]))
        engine.close()
    for place, picture in enumerate(alone):
        assert all((picture != other).any() for other in alone[:place]), "every request has a picture of its own"
    order = [[(turn + offset) % len(different) for turn in range(50)] for offset in (0, 3)]
    engine = engine_with(models, tmp_path, room_gb)
    drawn = asyncio.run(clients(engine, *([different[place] for place in places] for places in order)))
    engine.close()
    for pictures, places in zip(drawn, order, strict=True):
        for picture, place in zip(pictures, places, strict=True):
            np.testing.assert_array_equal(picture, alone[place])


def test_clients_that_stay_with_a_checkpoint_each_do_not_have_it_loaded_for_every_picture(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with(models, tmp_path, ROOM_FOR_ONE)
    wanted = [[asked(name)] * 25 for name in CHECKPOINTS]
    with caplog.at_level(logging.INFO, logger="darkroom.nets.store"):
        drawn = asyncio.run(clients(engine, *wanted))
    engine.close()
    loads = [record.getMessage() for record in caplog.records if " loaded in " in record.getMessage()]
    assert 2 <= len(loads) <= 15, loads
    for pictures in drawn:
        assert all((picture == pictures[0]).all() for picture in pictures)
