import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from darkroom.engine.client import Preview
from tests.unit.api.conftest import from_base64
from tests.unit.api.fake_engine import FakeEngine

ROUTE = "/sdapi/v1/progress"

STATE_KEYS = [
    "skipped",
    "interrupted",
    "stopping_generation",
    "job",
    "job_count",
    "job_timestamp",
    "job_no",
    "sampling_step",
    "sampling_steps",
]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(held=True)


@contextmanager
def generating(client: TestClient, engine: FakeEngine, **fields: Any) -> Iterator[list[Any]]:
    """A request that runs in the background until the block ends or the engine finishes it."""
    answers: list[Any] = []
    before = len(engine.specs)
    fields = {"width": 64, "height": 64, **fields}
    thread = threading.Thread(target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=fields)))
    thread.start()
    while len(engine.specs) == before:
        time.sleep(0.001)
    yield answers
    if engine.jobs()[0].ended_at is None:
        engine.finish(f"job{before}")
    thread.join(10)
    assert answers, "the request was answered"


def test_idle_is_exactly_nothing(client: TestClient) -> None:
    body = client.get(ROUTE).json()
    assert list(body) == ["progress", "eta_relative", "state", "current_image", "textinfo"]
    assert list(body["state"]) == STATE_KEYS
    assert body["progress"] == body["eta_relative"] == 0.0
    assert body["current_image"] is None
    assert (body["state"]["job"], body["state"]["job_count"], body["state"]["job_timestamp"]) == ("", 0, "0")


def test_a_running_job_is_counted_as_the_original_does(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, n_iter=2, steps=30):
        engine.set("job0", iteration=1, step=13)
        body = client.get(ROUTE).json()
    assert body["progress"] == pytest.approx(0.01 + 1 / 2 + 13 / 30 / 2)
    assert body["state"]["job"] == "Batch 2 out of 2"
    assert (body["state"]["job_count"], body["state"]["job_no"]) == (2, 1)
    assert (body["state"]["sampling_step"], body["state"]["sampling_steps"]) == (13, 30)


def test_a_batch_with_hires_fix_counts_as_two_jobs(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, n_iter=2, steps=30, enable_hr=True, denoising_strength=0.5):
        engine.set("job0", iteration=1, part=1, step=13)
        body = client.get(ROUTE).json()
    assert body["progress"] == pytest.approx(0.01 + 3 / 4 + 13 / 30 / 4)
    assert (body["state"]["job_count"], body["state"]["job_no"]) == (4, 3)
    assert (body["state"]["sampling_step"], body["state"]["sampling_steps"]) == (13, 30)
    assert client.get(ROUTE).json()["state"]["job_no"] == 4


def test_progress_never_exceeds_one(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, steps=30):
        engine.set("job0", step=30)
        assert client.get(ROUTE).json()["progress"] == 1.0


def test_a_waiting_job_reads_as_preparing(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine):
        engine.set("job0", state="queued")
        body = client.get(ROUTE).json()
    assert (body["progress"], body["state"]["job_count"]) == (0.01, -1)
    assert body["state"]["job"] == "scripts_txt2img"


def test_the_job_submitted_first_is_the_one_shown(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, steps=11):
        other = engine.submit(engine.specs[0])
        engine.set("job0", step=5)
        assert client.get(ROUTE).json()["state"]["sampling_step"] == 5
        engine.finish(other)


def test_the_end_of_a_job_is_idle_again_and_remembers_its_time(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, n_iter=2):
        stamp = client.get(ROUTE).json()["state"]["job_timestamp"]
    body = client.get(ROUTE).json()
    assert (body["progress"], body["state"]["job_count"], body["state"]["job_no"]) == (0.0, 0, 2)
    assert body["state"]["job_timestamp"] == stamp


def test_an_interrupt_answers_with_the_pictures_so_far(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, n_iter=3) as answers:
        assert client.post("/sdapi/v1/interrupt").json() == {}
    body = answers[0].json()
    assert len(body["images"]) == 1
    assert body["info"].count('"all_seeds"') == 1
    assert client.get(ROUTE).json()["state"]["interrupted"] is True


def test_an_interrupt_before_the_first_picture_gives_an_empty_list(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine) as answers:
        engine.finish("job0", "interrupted", pictures=0)
    assert answers[0].json()["images"] == []
    assert '"infotexts": ["Steps' in answers[0].json()["info"]


def test_an_interrupt_while_idle_is_shown_and_forgotten_by_the_next_job(client: TestClient, engine: FakeEngine) -> None:
    client.post("/sdapi/v1/interrupt")
    assert client.get(ROUTE).json()["state"]["interrupted"] is True
    with generating(client, engine):
        assert client.get(ROUTE).json()["state"]["interrupted"] is False
    assert client.get(ROUTE).json()["state"]["interrupted"] is False


def test_an_interrupt_reaches_the_job_that_is_about_to_run(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine) as answers:
        engine.set("job0", state="queued")
        client.post("/sdapi/v1/interrupt")
    assert answers[0].status_code == 200


def test_skip_answers_null_and_marks_the_job(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, n_iter=2):
        answer = client.post("/sdapi/v1/skip")
        assert answer.json() is None
        assert client.get(ROUTE).json()["state"]["skipped"] is True


def test_a_live_picture_is_made_every_few_steps_only(client: TestClient, engine: FakeEngine) -> None:
    engine.live_picture = np.full((8, 8, 3), 9, dtype=np.uint8)
    with generating(client, engine, steps=30):
        engine.set("job0", step=9)
        assert client.get(ROUTE).json()["current_image"] is None
        engine.set("job0", step=12)
        first = client.get(ROUTE).json()["current_image"]
        assert client.get(ROUTE).json()["current_image"] == first
        assert client.get(ROUTE, params={"skip_current_image": "true"}).json()["current_image"] is None
    assert from_base64(first).getpixel((0, 0)) == (9, 9, 9)
    assert len(engine.previews) == 1


def test_a_live_picture_does_not_wait_for_the_picture_that_is_drawn_last(
    client: TestClient, engine: FakeEngine
) -> None:
    engine.live_picture = np.full((8, 8, 3), 9, dtype=np.uint8)
    with generating(client, engine, steps=30):
        engine.set("job0", step=0, worked=10)
        assert client.get(ROUTE).json()["current_image"]


def test_a_live_picture_shows_the_whole_batch_as_the_options_want_it(client: TestClient, engine: FakeEngine) -> None:
    engine.live_picture = np.full((8, 8, 3), 9, dtype=np.uint8)
    client.post("/sdapi/v1/options", json={"show_progress_type": "TAESD", "live_preview_content": "Combined"})
    with generating(client, engine, steps=30):
        engine.set("job0", step=10)
        assert from_base64(client.get(ROUTE).json()["current_image"]).size == (16, 16)
        client.post("/sdapi/v1/options", json={"show_progress_grid": False})
        engine.set("job0", step=20)
        assert from_base64(client.get(ROUTE).json()["current_image"]).size == (8, 8)
    assert engine.previews == [
        Preview(method="TAESD", content="Combined", whole_batch=True),
        Preview(method="TAESD", content="Combined"),
    ]


def test_the_last_live_picture_stays_until_the_next_batch_has_made_its_steps(
    client: TestClient, engine: FakeEngine
) -> None:
    engine.live_picture = np.full((8, 8, 3), 9, dtype=np.uint8)
    with generating(client, engine, steps=30, n_iter=2):
        engine.set("job0", step=25)
        first = client.get(ROUTE).json()["current_image"]
        engine.set("job0", step=9, iteration=1)
        assert client.get(ROUTE).json()["current_image"] == first
        assert len(engine.previews) == 1
        engine.set("job0", step=10, iteration=1)
        client.get(ROUTE)
    assert len(engine.previews) == 2


def test_a_live_picture_can_be_that_of_the_last_finished_batch(client: TestClient, engine: FakeEngine) -> None:
    engine.live_picture = np.full((8, 8, 3), 9, dtype=np.uint8)
    client.post("/sdapi/v1/options", json={"show_progress_every_n_steps": -1})
    with generating(client, engine, steps=30, n_iter=2):
        engine.set("job0", step=25)
        assert client.get(ROUTE).json()["current_image"] is None
        engine.set("job0", step=1, iteration=1)
        assert client.get(ROUTE).json()["current_image"] is not None
        client.get(ROUTE)
    assert [preview.finished for preview in engine.previews] == [True]


def test_live_pictures_can_be_switched_off(client: TestClient, engine: FakeEngine) -> None:
    engine.live_picture = np.zeros((8, 8, 3), dtype=np.uint8)
    client.post("/sdapi/v1/options", json={"live_previews_enable": False})
    with generating(client, engine, steps=30):
        engine.set("job0", step=20)
        assert client.get(ROUTE).json()["current_image"] is None


def test_queries_that_clients_send_are_taken(client: TestClient) -> None:
    assert client.get(ROUTE, params={"skip_current_image": "True", "skipCurrentImage": 1}).status_code == 200
    answer = client.get(ROUTE, params={"skip_current_image": "maybe"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "skip_current_image"]


def test_the_queue_is_told_to_clients_that_test_their_connection_with_it(
    client: TestClient, engine: FakeEngine
) -> None:
    with generating(client, engine):
        engine.set("job0", state="queued")
        assert client.get("/queue/status").json()["queue_size"] == 1
    assert client.get("/queue/status").json()["queue_size"] == 0
