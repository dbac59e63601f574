"""Requests with different adapters, autoencoders and embeddings side by side in one engine, on a tiny network."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from darkroom.engine.local import LocalEngine
from darkroom.jobs.spec import Adapter, JobSpec
from darkroom.settings import Settings
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae
from tests.tiny.test_engine import draw, picture, tiny_spec

ONE, TWO = Adapter(name="one"), Adapter(name="two", unet=0.7, text=0.2)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    models = tmp_path / "models"
    write_tiny_checkpoint(models / "Stable-diffusion", "tiny", seed=1)
    for seed, name in enumerate(("one", "two")):
        write_tiny_lora(models / "Lora", name, seed)
    write_tiny_vae(models / "VAE" / "other.safetensors", seed=7)
    (models / "embeddings").mkdir()
    save_file({"emb_params": torch.randn(2, 64)}, models / "embeddings" / "thing.safetensors")
    settings = Settings(data_dir=tmp_path, models_dir=models, device="cpu", precision="fp32", exact=True)
    engine = LocalEngine(settings)
    yield engine
    engine.close()


SPECS: list[dict[str, Any]] = [
    {},
    {"adapters": (ONE,)},
    {"adapters": (TWO, ONE)},
    {"adapters": (Adapter(name="one", blocks=(("BASE", 0.5), ("MID", 1.0))),)},
    {"vae": "other.safetensors"},
    {"tiling": True},
    {"token_merging": 0.5, "adapters": (ONE,)},
    {"prompt": "a thing"},
]


def asked(**changes: Any) -> JobSpec:
    return replace(tiny_spec(steps=3), **changes)


def test_requests_that_need_other_networks_do_not_touch_each_other(engine: LocalEngine) -> None:
    specs = [asked(**changes) for changes in SPECS]
    alone = [picture(draw(engine, spec)[0]) for spec in specs]
    together = [picture(event) for event in draw(engine, *specs, *reversed(specs))]
    for i, one in enumerate(alone):
        np.testing.assert_array_equal(one, together[i])
        np.testing.assert_array_equal(one, together[-1 - i])
        assert all((one != other).any() for other in alone[:i]), "every one of them makes a picture of its own"


def test_an_embedding_counts_by_its_name_and_no_longer_once_its_file_is_gone(
    engine: LocalEngine, tmp_path: Path
) -> None:
    with_it = picture(draw(engine, asked(prompt="a thing"))[0])
    assert [info.name for info in engine.find_embeddings(64, ("a THING",), "Original", 20)] == ["thing"]
    assert engine.find_embeddings(768, ("a thing",), "Original", 20) == []
    assert engine.count_tokens(64, "a thing", "Original", 20) == 1 + engine.embeddings()[0].vectors
    assert engine.count_tokens(64, "a cat, a dog", "Original", 20) == 5
    (tmp_path / "models/embeddings/thing.safetensors").unlink()
    assert engine.embeddings() == []
    assert (picture(draw(engine, asked(prompt="a thing"))[0]) != with_it).any()


def test_a_replaced_adapter_file_is_read_again(engine: LocalEngine, tmp_path: Path) -> None:
    spec = asked(adapters=(ONE,))
    before = picture(draw(engine, spec)[0])
    write_tiny_lora(tmp_path / "models/Lora", "one", seed=8, size=0.4)
    assert (picture(draw(engine, spec)[0]) != before).any()


def test_a_new_adapter_is_found_without_a_refresh(engine: LocalEngine, tmp_path: Path) -> None:
    assert engine.find_adapter("three") is None
    write_tiny_lora(tmp_path / "models/Lora", "three", seed=3)
    found = engine.find_adapter("three")
    assert found is not None
    assert found.name == "three"


def test_a_damaged_adapter_fails_its_own_job_by_name_and_no_other(engine: LocalEngine, tmp_path: Path) -> None:
    save_file({"lora_unet_x.mystery": torch.ones(2)}, tmp_path / "models/Lora/bad.safetensors")
    engine.refresh()
    with pytest.raises(Exception, match=r"bad\.safetensors"):
        draw(engine, asked(adapters=(Adapter(name="bad"),)))
    assert draw(engine, asked())[0].status.state == "done"
