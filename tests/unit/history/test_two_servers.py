"""Servers that share one database: no job is done twice, and those of a lost one are done by the others."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.api.jobs import dispatch
from darkroom.history import ledger
from darkroom.history.database import Database
from darkroom.history.ledger import Ledger
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}
LIMIT_S = 20.0
LEASE_S = 1.0

Serve = Callable[[FakeEngine], TestClient]


@pytest.fixture
def serve(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts one more server on the database they share. Leases are short."""
    monkeypatch.setattr(ledger, "LEASE_S", LEASE_S)
    monkeypatch.setattr(dispatch, "LEASE_S", LEASE_S)
    monkeypatch.setattr(dispatch, "BEAT_S", 0.1)
    monkeypatch.setattr(dispatch, "IDLE_S", 0.1)
    settings = Settings(
        data_dir=tmp_path, history=False, jobs_at_once=3, database_url=postgres_url, signing_key="shared"
    )
    with ExitStack() as stack:
        yield lambda engine: stack.enter_context(
            TestClient(create_app(settings, engine, Options(settings.options_file)))
        )


def promise(client: TestClient, **headers: str) -> str:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(TXT2IMG, json=SMALL, headers={"Prefer": "respond-async", **sent})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(client: TestClient, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
    return found


def until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not wanted():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_two_servers_share_the_work_and_do_nothing_twice(serve: Serve) -> None:
    engines = [FakeEngine(), FakeEngine()]
    clients = [serve(engine) for engine in engines]
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda number: promise(clients[number % 2]), range(24)))
    until(lambda: all(job(clients[0], job_id)["state"] == "done" for job_id in ids))
    assert sum(len(engine.specs) for engine in engines) == len(ids)
    assert {job(clients[1], job_id)["attempts"] for job_id in ids} == {1}


def test_one_key_sent_to_two_servers_by_twenty_clients_is_one_job(serve: Serve) -> None:
    engines = [FakeEngine(), FakeEngine()]
    clients = [serve(engine) for engine in engines]
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(lambda number: promise(clients[number % 2], Idempotency_Key="once"), range(20)))
    assert len(set(ids)) == 1
    until(lambda: job(clients[0], ids[0])["state"] == "done")
    assert sum(len(engine.specs) for engine in engines) == 1


def test_a_job_that_lasts_longer_than_its_lease_stays_where_it_is(serve: Serve) -> None:
    slow, idle = FakeEngine(held=True), FakeEngine()
    first = serve(slow)
    job_id = promise(first)
    until(lambda: len(slow.specs) == 1)
    second = serve(idle)
    time.sleep(2.5 * LEASE_S)
    assert (job(second, job_id)["state"], idle.specs) == ("running", [])
    slow.finish("job0")
    until(lambda: job(second, job_id)["state"] == "done")
    assert job(second, job_id)["attempts"] == 1


def test_what_a_lost_server_had_begun_is_done_by_another_one(serve: Serve, postgres_url: str) -> None:
    engine = FakeEngine()
    engine.is_ready = False
    client = serve(engine)
    job_id = promise(client)
    database = Database(postgres_url)
    lost = Ledger(database)
    assert lost.claim() is not None
    engine.is_ready = True
    assert job(client, job_id)["state"] == "running"
    until(lambda: job(client, job_id)["state"] == "done")
    assert (job(client, job_id)["attempts"], len(engine.specs)) == (2, 1)
    assert not lost.end(job_id, "done")
    database.close()


def test_a_job_is_cancelled_from_either_server(serve: Serve) -> None:
    engine, other = FakeEngine(held=True), FakeEngine()
    other.is_ready = False
    first, second = serve(engine), serve(other)
    job_id = promise(first)
    until(lambda: len(engine.specs) == 1)
    second.delete(f"/jobs/{job_id}")
    until(lambda: job(first, job_id)["state"] == "cancelled")
    until(lambda: engine.status("job0").state == "cancelled")
