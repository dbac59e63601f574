"""What the engine does beside jobs: merges and descriptions, with the device thread running."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from darkroom.engine.client import result
from darkroom.engine.local import LocalEngine
from darkroom.engine.merging import Stopped
from darkroom.jobs.describing import InTags, InWords
from darkroom.jobs.merging import MergeOrder, Stage
from darkroom.jobs.spec import CheckpointInfo
from darkroom.nets.describers.missing import MissingNetwork
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.test_engine import make_settings, tiny_spec

ORDER = MergeOrder(a="tiny.safetensors", b="other.safetensors", method="Weighted sum", multiplier=0.5, name="mix")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    write_tiny_checkpoint(tmp_path / "models", "other", seed=2)
    engine = LocalEngine(make_settings(tmp_path, models_dir=tmp_path))
    yield engine
    engine.close()


def ignore(_: Stage) -> None:
    """Nobody watches."""


def test_a_merged_checkpoint_draws_at_once_and_jobs_go_on_meanwhile(engine: LocalEngine) -> None:
    async def work() -> tuple[CheckpointInfo, list[str]]:
        ended: list[str] = []

        async def merge() -> CheckpointInfo:
            info = await engine.merge(ORDER, lambda _: time.sleep(0.01), Event())
            ended.append("merge")
            return info

        async def draw() -> None:
            await result(engine, engine.submit(tiny_spec()))
            ended.append("picture")

        info, _ = await asyncio.gather(merge(), draw())
        return info, ended

    info, ended = asyncio.run(work())
    assert ended == ["picture", "merge"]
    assert info.path == "mix.safetensors"
    assert info in engine.checkpoints()
    last = asyncio.run(result(engine, engine.submit(tiny_spec(checkpoint=info.key))))
    assert last.pictures[0].picture.std() > 1


def test_an_engine_that_closes_ends_its_merges(engine: LocalEngine) -> None:
    begun = Event()
    errors: list[BaseException] = []

    def report(_: Stage) -> None:
        begun.set()
        time.sleep(0.02)

    def merge() -> None:
        try:
            asyncio.run(engine.merge(ORDER, report, Event()))
        except Stopped as error:
            errors.append(error)

    thread = Thread(target=merge)
    thread.start()
    assert begun.wait(10)
    engine.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert not any("mix" in info.path for info in engine.checkpoints())


def test_whoever_goes_away_while_he_asks_leaves_the_device_at_work(engine: LocalEngine) -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)

    async def leave() -> None:
        # The device is busy, so that the question is still waiting when its client goes.
        job_id = engine.submit(tiny_spec())
        for _ in range(5):
            task = asyncio.ensure_future(engine.describe(picture, InTags()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await result(engine, job_id)

    asyncio.run(leave())
    assert asyncio.run(result(engine, engine.submit(tiny_spec()))).pictures


@pytest.mark.parametrize("question", [InWords(), InTags()])
def test_a_missing_describing_network_fails_the_question_and_nothing_else(
    engine: LocalEngine, question: InWords | InTags
) -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    with pytest.raises(MissingNetwork):
        asyncio.run(engine.describe(picture, question))
    assert asyncio.run(result(engine, engine.submit(tiny_spec()))).pictures
