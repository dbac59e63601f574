"""The whole engine on a tiny network: real tensors through real modules, with the device thread running."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from darkroom.engine.catalogue import Catalogue
from darkroom.engine.client import ANYBODY, Event, Preview, PreviewMethod, Standing, result
from darkroom.engine.local import KNEES, LocalEngine
from darkroom.engine.runner import kernels_for
from darkroom.errors import Busy, DarkroomError, UnknownName
from darkroom.jobs.spec import JobSpec, Picture
from darkroom.nets.kernels import Kernels
from darkroom.settings import Settings
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.unit.engine.fake_runner import make_spec

METHODS: list[PreviewMethod] = ["Full", "Approx cheap", "Approx NN"]
SAMPLERS = ["Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "DDIM"]


def make_settings(folder: Path, **changes: object) -> Settings:
    write_tiny_checkpoint(folder / "models", "tiny", seed=1)
    return Settings(data_dir=folder, ckpt_dir=folder / "models", device="cpu", precision="fp32", **changes)  # type: ignore[arg-type]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(make_settings(tmp_path))
    yield engine
    engine.close()


def tiny_spec(prompt: str = "a cat", **changes: object) -> JobSpec:
    spec = make_spec(prompt, size=64, steps=4)
    return replace(spec, **{"checkpoint": "tiny.safetensors", **changes})  # type: ignore[arg-type]


def draw(engine: LocalEngine, *specs: JobSpec) -> list[Event]:
    async def all_of() -> list[Event]:
        return list(await asyncio.gather(*[result(engine, engine.submit(spec)) for spec in specs]))

    return asyncio.run(all_of())


def picture(event: Event) -> Picture:
    return event.pictures[0].picture


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_request_alone_and_among_seven_others_gives_the_same_picture(engine: LocalEngine, sampler: str) -> None:
    spec = tiny_spec(sampler=sampler)
    others = [tiny_spec(f"another {i}", sampler=SAMPLERS[i % 6], steps=2 + i, seeds=(i,)) for i in range(7)]
    alone = picture(draw(engine, spec)[0]).astype(int)
    crowded = picture(draw(engine, spec, *others)[0]).astype(int)
    # Kernels are chosen by batch size, so the last bit of a pixel may differ.
    assert np.abs(alone - crowded).max() <= 1
    assert alone.std() > 1, "the picture is not blank"


def test_in_exact_mode_the_bytes_are_the_same_alone_in_company_and_after_a_restart(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, exact=True)
    spec = tiny_spec(sampler="Euler a")
    drawn = []
    for others in ([], [tiny_spec(f"another {i}", seeds=(i,)) for i in range(7)]):
        engine = LocalEngine(settings)
        drawn.append(picture(draw(engine, spec, *others)[0]))
        engine.close()
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_two_checkpoints_are_served_side_by_side(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "models", "other", seed=2)
    engine = LocalEngine(make_settings(tmp_path))
    specs = [tiny_spec(), tiny_spec(checkpoint="other.safetensors")]
    together = draw(engine, *specs)
    apart = [draw(engine, spec)[0] for spec in specs]
    engine.close()
    for one, other in zip(together, apart, strict=True):
        assert np.abs(picture(one).astype(int) - picture(other).astype(int)).max() <= 1
    assert (picture(together[0]) != picture(together[1])).any()


def test_progress_comes_in_order_and_previews_show_the_running_picture(engine: LocalEngine) -> None:
    async def watch() -> tuple[list[float], list[tuple[int, ...]]]:
        job_id = engine.submit(replace(tiny_spec(steps=40), batch_size=2, seeds=(1, 2), subseeds=(1, 2)))
        fractions, shapes = list[float](), list[tuple[int, ...]]()
        async for event in engine.events(job_id):
            fractions.append(event.status.fraction)
            if event.status.step >= 5 and not shapes:
                for method in METHODS:
                    shown = await engine.preview(job_id, Preview(method=method, whole_batch=True, content="Combined"))
                    shapes += [picture.shape for picture in shown]
        return fractions, shapes

    fractions, shapes = asyncio.run(watch())
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert shapes == [(64, 64, 3)] * 2 + [(8, 8, 3)] * 4


def test_a_cancelled_job_ends_within_one_evaluation(engine: LocalEngine) -> None:
    async def cancel() -> list[str]:
        job_id = engine.submit(tiny_spec(steps=150))
        states: list[str] = []
        async for event in engine.events(job_id):
            states.append(event.status.state)
            if event.status.step == 2:
                engine.cancel(job_id)
        return states

    states = asyncio.run(cancel())
    assert states[-1] == "cancelled"
    assert len(states) < 20


def test_an_unknown_checkpoint_is_refused_at_once(engine: LocalEngine) -> None:
    with pytest.raises(UnknownName, match=r"tiny\.safetensors"):
        engine.submit(tiny_spec(checkpoint="tini.safetensors"))


def test_a_full_queue_refuses_instead_of_growing(tmp_path: Path) -> None:
    engine = LocalEngine(make_settings(tmp_path, max_queue=2, max_lanes=1))
    with pytest.raises(Busy):
        submit_many(engine)
    engine.close()


def test_nobody_fills_the_queue_alone(tmp_path: Path) -> None:
    engine = LocalEngine(make_settings(tmp_path, max_queue=8, max_lanes=1))
    engine.submit(tiny_spec(steps=150))
    with pytest.raises(Busy, match="for others"):
        submit_many(engine, 12, Standing(party="flood"))
    engine.submit(tiny_spec(steps=1), Standing(party="ben"))
    engine.close()


def submit_many(engine: LocalEngine, count: int = 4, standing: Standing = ANYBODY) -> None:
    for _ in range(count):
        engine.submit(tiny_spec(steps=150), standing)


def test_a_broken_checkpoint_fails_its_job_and_the_engine_goes_on(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    (tmp_path / "models" / "a-broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header....")
    engine = LocalEngine(settings)
    with pytest.raises(Exception, match=r"a-broken\.safetensors"):
        draw(engine, tiny_spec(checkpoint="a-broken.safetensors"))
    assert draw(engine, tiny_spec())[0].status.state == "done"
    engine.close()


def test_a_device_that_cannot_start_fails_its_jobs_instead_of_keeping_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr("darkroom.engine.runner.NetworkRunner.__init__", broken)
    engine = LocalEngine(make_settings(tmp_path))
    with pytest.raises(DarkroomError, match="the device has stopped"):
        draw(engine, tiny_spec())
    engine.close()
    assert not engine.ready()
    assert "no such device" in caplog.text


def test_a_device_that_breaks_down_fails_the_job_it_was_working_on(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken down")

    monkeypatch.setattr("darkroom.engine.loop.Loop._pick", broken)
    with pytest.raises(DarkroomError, match="the device has stopped"):
        draw(engine, tiny_spec())


def test_nobody_waits_for_the_copy_of_another_jobs_pickled_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    weights = load_file(tmp_path / "models" / "tiny.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "models" / "pickled.ckpt")
    shutil.copy(tmp_path / "models" / "tiny.yaml", tmp_path / "models" / "pickled.yaml")
    go_on, copy = threading.Event(), Catalogue.copy
    copied: list[str] = []

    def patient(catalogue: Catalogue, path: Path) -> None:
        assert go_on.wait(60)
        copied.append(path.name)
        copy(catalogue, path)

    monkeypatch.setattr(Catalogue, "copy", patient)
    engine = LocalEngine(settings)

    async def all_of() -> list[Event]:
        held = engine.submit(tiny_spec(checkpoint="pickled.ckpt"))
        plain = await result(engine, engine.submit(tiny_spec()))
        assert engine.status(held).state == "queued"
        go_on.set()
        return [plain, await result(engine, held), await result(engine, engine.submit(plain_again))]

    plain_again = tiny_spec(checkpoint="pickled.ckpt")
    events = asyncio.run(all_of())
    engine.close()
    assert [event.status.state for event in events] == ["done"] * 3
    np.testing.assert_array_equal(picture(events[0]), picture(events[1]))
    assert copied == ["pickled.ckpt"]


def test_what_batches_cost_is_known_after_a_restart(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    for _ in range(2):
        engine = LocalEngine(settings)
        draw(engine, tiny_spec())
        engine.close()
        [*_, last] = [kind for kind in json.loads((tmp_path / KNEES).read_text())["costs"] if kind[0] == "denoise"]
        assert last[1:3] == ["tiny.safetensors", 64]
        assert set(last[3]) == {"2"}
        assert 0 < last[3]["2"] < 60


def test_a_user_without_a_home_is_served_by_torchs_own_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert kernels_for(Settings(data_dir=tmp_path), torch.device("cpu"), torch.bfloat16) == Kernels()
