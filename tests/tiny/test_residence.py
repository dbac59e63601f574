"""What is in memory while an engine serves: what settings and requests say of it, and what its routes do to it."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
import torch

from darkroom.engine.client import Preview
from darkroom.engine.local import LocalEngine
from darkroom.engine.runner import NetworkRunner, find_turns
from darkroom.errors import BadModelFile
from darkroom.jobs.spec import Adapter
from darkroom.settings import Settings
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae
from tests.tiny.test_engine import draw, make_settings, picture, tiny_spec

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def runner_of(engine: LocalEngine) -> NetworkRunner:
    assert engine._runner is not None
    return engine._runner


def nbytes(engine: LocalEngine) -> int:
    return asyncio.run(engine._ask(lambda: runner_of(engine)._store.nbytes))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(make_settings(tmp_path, exact=True))
    yield engine
    engine.close()


def test_a_file_replaced_under_a_running_job_does_not_touch_it_and_counts_for_the_next(
    engine: LocalEngine, tmp_path: Path
) -> None:
    spec = tiny_spec(steps=40)
    alone = picture(draw(engine, spec)[0])

    async def replaced() -> list[str]:
        job_id = engine.submit(spec)
        states: list[str] = []
        async for event in engine.events(job_id):
            states.append(event.status.state)
            if event.status.step >= 3:
                (tmp_path / "models" / "tiny.safetensors").write_bytes(b"cut off")
        np.testing.assert_array_equal(event.pictures[0].picture, alone)
        return states

    assert asyncio.run(replaced())[-1] == "done"
    with pytest.raises(BadModelFile, match=r"tiny\.safetensors"):
        draw(engine, spec)
    write_tiny_checkpoint(tmp_path / "models", "tiny", seed=5)
    assert (picture(draw(engine, spec)[0]) != alone).any()


def test_an_adapter_or_autoencoder_replaced_under_a_running_job_does_not_touch_it(tmp_path: Path) -> None:
    lora = write_tiny_lora(tmp_path / "models" / "Lora", "one")
    vae = write_tiny_vae(tmp_path / "models" / "VAE" / "other.safetensors", seed=7)
    engine = LocalEngine(make_settings(tmp_path, models_dir=tmp_path / "models", exact=True))
    spec = tiny_spec(steps=40, adapters=(Adapter(name="one"),), vae="other.safetensors")
    alone = picture(draw(engine, spec)[0])

    async def replaced() -> None:
        job_id = engine.submit(spec)
        async for event in engine.events(job_id):
            if event.status.step >= 3:
                lora.write_bytes(b"cut off")
                vae.write_bytes(b"cut off")
        np.testing.assert_array_equal(event.pictures[0].picture, alone)

    asyncio.run(replaced())
    with pytest.raises(BadModelFile, match=r"(one|other)\.safetensors"):
        draw(engine, spec)
    engine.close()


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_other_one_in_memory(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, model_memory_gb=0.001)
    (tmp_path / "models" / "z-broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header....")
    engine = LocalEngine(settings)
    draw(engine, tiny_spec())
    before = nbytes(engine)
    assert before > 0
    for _ in range(2):
        with pytest.raises(BadModelFile, match=r"z-broken\.safetensors: \w+"):
            draw(engine, tiny_spec(checkpoint="z-broken.safetensors"))
    assert nbytes(engine) == before
    engine.close()


def test_models_that_nobody_uses_are_freed_after_the_time_that_was_set(tmp_path: Path) -> None:
    engine = LocalEngine(make_settings(tmp_path, unload_after_s=0.3))
    first = picture(draw(engine, tiny_spec())[0])
    deadline = monotonic() + 30
    while nbytes(engine):
        assert monotonic() < deadline
        sleep(0.1)
    np.testing.assert_allclose(picture(draw(engine, tiny_spec())[0]), first, atol=1)
    engine.close()


def test_unloading_frees_everything_and_a_job_loads_again(engine: LocalEngine) -> None:
    draw(engine, tiny_spec())
    assert nbytes(engine) > 0
    asyncio.run(engine.unload())
    assert nbytes(engine) == 0
    asyncio.run(engine.load("tiny.safetensors"))
    held = nbytes(engine)
    draw(engine, tiny_spec())
    assert nbytes(engine) == held


def test_adapters_and_what_they_touch_count(engine: LocalEngine, tmp_path: Path) -> None:
    draw(engine, tiny_spec())
    plain = nbytes(engine)
    file = write_tiny_lora(tmp_path / "models" / "Lora", "one")
    loras = LocalEngine(make_settings(tmp_path, models_dir=tmp_path / "models"))
    draw(loras, tiny_spec(adapters=(Adapter(name="one"),)))
    assert nbytes(loras) > plain + file.stat().st_size // 2
    loras.close()


def test_a_checkpoint_in_eight_bits_draws_another_picture_and_takes_less(engine: LocalEngine) -> None:
    wide = picture(draw(engine, tiny_spec())[0])
    before = nbytes(engine)
    spec = replace(tiny_spec(), eight_bits="Enable")
    small = picture(draw(engine, spec)[0])
    assert (small != wide).any()
    assert before < nbytes(engine) < 2 * before
    same = replace(tiny_spec(), eight_bits="Enable for SDXL")
    np.testing.assert_array_equal(picture(draw(engine, same)[0]), wide)


def test_a_preview_loads_nothing(tmp_path: Path) -> None:
    """The lane that is shown may wait for weights that another lane has had dropped."""
    write_tiny_checkpoint(tmp_path / "models", "other", seed=2)
    engine = LocalEngine(make_settings(tmp_path))

    def shown_before_and_after_it_is_dropped(job_id: str) -> tuple[int, int]:
        before = engine._preview(engine._get(job_id), Preview(method="Full"))
        runner_of(engine)._store.clear()
        return len(before), len(engine._preview(engine._get(job_id), Preview(method="Full")))

    async def watch() -> list[tuple[int, int]]:
        job_id = engine.submit(tiny_spec(steps=150))
        shown: list[tuple[int, int]] = []
        async for event in engine.events(job_id):
            if event.status.step >= 3 and not shown:
                shown.append(await engine._ask(lambda: shown_before_and_after_it_is_dropped(job_id)))
                engine.cancel(job_id)
        return shown

    assert asyncio.run(watch()) == [(1, 0)]
    engine.close()


@pytest.mark.parametrize(
    ("flags", "tiers"),
    [
        ({"medvram": True}, ("parts", "parts")),
        ({"lowvram": True}, ("blocks", "blocks")),
        ({"lowvram": True, "medvram": True, "medvram_sdxl": True}, ("blocks", "blocks")),
        ({"medvram_sdxl": True}, ("whole", "parts")),
    ],
)
def test_flags_of_little_memory_say_what_is_on_a_gpu_at_a_time(
    flags: dict[str, bool], tiers: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(**flags)  # type: ignore[arg-type]
    turns = find_turns(settings, GPU)
    assert turns is not None
    assert (turns.tier_of("sd1"), turns.tier_of("sdxl")) == tiers
    with caplog.at_level(logging.INFO):
        assert find_turns(settings, CPU) is None
    assert "change nothing here" in caplog.text


def test_without_such_flags_everything_stays_on_the_device() -> None:
    assert find_turns(Settings(), GPU) is None
