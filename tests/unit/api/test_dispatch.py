"""Promised jobs in trouble: files and the database fail them, many ask at once, one asks too often, servers stop."""

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.api.jobs import dispatch
from darkroom.api.jobs.desk import Desk
from darkroom.engine.client import ANYBODY, Standing
from darkroom.history import database, ledger
from darkroom.jobs.retouching import Spec
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine
from tests.unit.api.test_several_users import USERS, as_user

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}
LIMIT_S = 20.0

pytestmark = pytest.mark.filterwarnings("error")


class SlowEngine(FakeEngine):
    """Needs some time for every job; works on some at once, like a device."""

    def __init__(self, job_s: float) -> None:
        super().__init__(held=True)
        self.job_s = job_s

    def submit(self, spec: Spec, standing: Standing = ANYBODY) -> str:
        job_id = super().submit(spec, standing)
        threading.Timer(self.job_s, self.end, [job_id]).start()
        return job_id

    def end(self, job_id: str) -> None:
        if self.status(job_id).state == "running":
            self.finish(job_id)


def promise(client: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> str:
    answer = client.post(TXT2IMG, json={**SMALL, **fields}, headers={**LATER, **(headers or {})})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def until(wanted: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not wanted():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def state(client: TestClient, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["state"])


def desk(client: TestClient) -> Desk:
    found = client.app.state.desk  # type: ignore[attr-defined]
    assert isinstance(found, Desk)
    return found


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    monkeypatch.setattr(database, "BUSY_S", 0.3)
    monkeypatch.setattr(dispatch, "AGAIN_S", 0.1)
    monkeypatch.setattr(dispatch, "PATIENCE_S", 1.0)
    monkeypatch.setattr(dispatch, "BEAT_S", 0.1)
    monkeypatch.setattr(dispatch, "IDLE_S", 0.1)


def test_pictures_that_cannot_be_kept_fail_their_job_with_the_reason(
    client: TestClient, tmp_path: Path, hasty: None
) -> None:
    (tmp_path / "pictures").write_text("not a folder")
    job_id = promise(client)
    until(lambda: state(client, job_id) == "failed")
    error = client.get(f"/jobs/{job_id}").json()["error"]
    assert error["code"] == "files_unavailable"
    assert "cannot be kept" in error["detail"]
    linked = client.post(TXT2IMG, json=SMALL, params={"response": "url"})
    assert (linked.status_code, linked.json()["code"]) == (503, "files_unavailable")
    assert client.post(TXT2IMG, json=SMALL).status_code == 200
    again = promise(client)
    time.sleep(0.3)
    (tmp_path / "pictures").unlink()
    until(lambda: state(client, again) == "done")  # what was drawn meanwhile is not lost


def test_an_end_that_cannot_be_written_down_is_written_down_later(
    serve: Serve, engine: FakeEngine, tmp_path: Path, hasty: None
) -> None:
    client = serve()
    engine.held = True
    job_id = promise(client)
    until(lambda: bool(engine.jobs()))
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    engine.held = False
    engine.finish("job0")
    refused = client.post(TXT2IMG, json=SMALL, headers=LATER)
    assert (refused.status_code, refused.json()["code"]) == (503, "history_unavailable")
    # "locked" is what SQLite says; "busy" where another of our own threads stands before it
    assert any(word in refused.json()["detail"] for word in ("locked", "busy"))
    assert client.post(TXT2IMG, json=SMALL).status_code == 200
    time.sleep(1)
    other.execute("COMMIT")
    other.close()
    until(lambda: state(client, job_id) == "done")
    assert len(client.get(f"/jobs/{job_id}").json()["images"]) == 1
    assert len(engine.specs) == 2  # the picture was not drawn again


def test_a_book_that_cannot_be_opened_is_named_and_does_not_stop_the_server(
    serve: Serve, tmp_path: Path, hasty: None
) -> None:
    (tmp_path / "history.db").write_bytes(b"\x8a" * 9000)
    client = serve(history=True)
    refused = client.post(TXT2IMG, json=SMALL, headers=LATER)
    assert (refused.status_code, refused.json()["code"]) == (503, "history_unavailable")
    assert "history.db cannot be used: file is not a database" in refused.json()["detail"]
    assert client.post(TXT2IMG, json=SMALL).status_code == 200
    assert client.get("/jobs").status_code == 503
    (tmp_path / "history.db").unlink()  # the operator puts it away: nothing has to be started again
    job_id = promise(client)
    until(lambda: state(client, job_id) == "done")


def test_a_book_that_is_deleted_while_jobs_run_loses_none(
    client: TestClient, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.held = True
    ids = [promise(client) for _ in range(3)]
    for path in tmp_path.glob("history.db*"):
        path.unlink()
    ids += [promise(client)]
    engine.held = False
    for job in engine.jobs():
        if job.state == "running":
            engine.finish(job.job_id)
    until(lambda: [state(client, job_id) for job_id in ids] == ["done"] * 4)


def test_a_job_of_options_that_are_not_known_any_more_fails_and_others_go_on(
    client: TestClient, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.is_ready = False
    ids = [promise(client) for _ in range(2)]
    with sqlite3.connect(tmp_path / "history.db") as opened:
        opened.execute("""UPDATE requests SET options = '{"gone": 1}' WHERE job_id = ?""", ids[:1])
    opened.close()
    engine.is_ready = True
    until(lambda: [state(client, job_id) for job_id in ids] == ["failed", "done"])


def test_twenty_clients_with_one_key_get_one_job(client: TestClient, engine: FakeEngine) -> None:
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(lambda _: promise(client, {"Idempotency-Key": "once"}), range(20)))
    assert len(set(ids)) == 1
    until(lambda: state(client, ids[0]) == "done")
    assert len(engine.specs) == 1


def test_a_retry_finds_its_job_where_there_is_no_room_for_another(serve: Serve, engine: FakeEngine) -> None:
    client = serve(max_jobs=1)
    engine.held = True
    first = promise(client, {"Idempotency-Key": "k"})
    refused = client.post(TXT2IMG, json=SMALL, headers=LATER)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert promise(client, {"Idempotency-Key": "k"}) == first
    client.delete(f"/jobs/{first}")


def test_a_job_that_is_cancelled_while_it_ends_leaves_no_files(
    client: TestClient, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.held = True
    ids = [promise(client, seed=seed) for seed in range(8)]
    until(lambda: len(engine.specs) == len(ids))

    def cancel(job_id: str) -> None:
        client.delete(f"/jobs/{job_id}")

    with ThreadPoolExecutor(8) as pool:
        ends = [pool.submit(engine.finish, job.job_id) for job in engine.jobs()]
        for job_id in ids:
            pool.submit(cancel, job_id)
        for end in ends:
            end.result()
    until(lambda: all(state(client, job_id) in ("done", "cancelled") for job_id in ids))
    done = sum(state(client, job_id) == "done" for job_id in ids)
    until(lambda: len(list((tmp_path / "pictures").rglob("*.png"))) == done)
    assert len(client.get("/images").json()["images"]) == done


def test_a_job_that_was_given_up_because_its_row_is_damaged_leaves_no_files_and_is_let_go(
    client: TestClient, engine: FakeEngine, tmp_path: Path, hasty: None
) -> None:
    engine.held = True
    job_id = promise(client)
    until(lambda: bool(engine.jobs()))
    with sqlite3.connect(tmp_path / "history.db") as opened:
        opened.execute("UPDATE jobs SET state = 'failed', model = CAST(x'ff' AS TEXT) WHERE id = ?", [job_id])
    opened.close()
    engine.finish("job0")
    until(lambda: not desk(client).present, limit_s=5)
    assert not list((tmp_path / "pictures").rglob("*.png"))
    assert client.get(f"/jobs/{job_id}").status_code == 410


def test_who_floods_does_not_keep_another_one_waiting(serve: Serve, engine: FakeEngine, tmp_path: Path) -> None:
    slow = SlowEngine(0.05)
    settings = Settings(data_dir=tmp_path, history=False, jobs_at_once=1, **USERS)  # type: ignore[arg-type]
    with TestClient(create_app(settings, slow, Options(settings.options_file))) as client:
        flood = [promise(client, as_user("ann")["headers"]) for _ in range(60)]
        until(lambda: len(slow.specs) >= 2)
        before = len(slow.specs)
        promise(client, as_user("ben")["headers"], prompt="ben's")
        until(lambda: any(spec.prompt == "ben's" for spec in slow.specs))
        place = [spec.prompt for spec in slow.specs].index("ben's")
        assert place <= before + 2
        for job_id in flood:
            client.delete(f"/jobs/{job_id}", **as_user("ann"))


def test_ten_times_the_capacity_is_refused_with_a_hint_or_done_in_time(tmp_path: Path) -> None:
    slow = SlowEngine(0.05)
    slow.capacity = 4
    settings = Settings(data_dir=tmp_path, history=False, max_jobs=10, jobs_at_once=4)
    with TestClient(create_app(settings, slow, Options(settings.options_file))) as client:

        def ask(number: int) -> Any:
            return client.post(TXT2IMG, json=SMALL, headers=LATER if number % 2 else {})

        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(ask, range(200)))
        counted = Counter(answer.status_code for answer in answers)
        assert set(counted) == {200, 202, 429}, counted
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429)
        promised = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        until(lambda: all(state(client, job_id) == "done" for job_id in promised))
        assert not desk(client).present
        began = time.monotonic()
        assert client.post(TXT2IMG, json=SMALL).status_code == 200
        assert time.monotonic() - began < 2


def test_who_goes_away_leaves_nothing_behind(client: TestClient, engine: FakeEngine) -> None:
    """Streams and requests whose clients are gone: as many tasks as before."""
    application = client.app
    portal = client.portal
    assert portal is not None
    first = promise(client)
    until(lambda: state(client, first) == "done")  # whatever is begun once, has begun
    engine.held = True

    async def count() -> int:
        return len(asyncio.all_tasks())

    async def go_away(scope: dict[str, Any], body: bytes) -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.2)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            del message

        await application(scope, receive, send)  # type: ignore[arg-type]

    def scope(method: str, path: str, **headers: str) -> dict[str, Any]:
        sent = {"host": "localhost", "content-type": "application/json", **headers}
        return {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "client": ("127.0.0.1", 1),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
            "server": ("localhost", 80), "state": {},
        }  # fmt: skip

    before = max(portal.call(count) for _ in range(10))
    job_id = promise(client)
    until(lambda: len(engine.specs) > 1)
    body = b'{"prompt": "x", "width": 64, "height": 64, "steps": 2}'
    for _ in range(5):
        portal.call(go_away, scope("GET", f"/jobs/{job_id}/events"), b"")
        portal.call(go_away, scope("POST", TXT2IMG), body)
    portal.call(go_away, scope("POST", TXT2IMG, idempotency_key="waits"), body)
    until(lambda: sum(job.state == "cancelled" for job in engine.jobs()) == 5)
    running = [job.job_id for job in engine.jobs() if job.state == "running"]
    assert len(running) <= 2  # what was promised goes on
    engine.held = False
    for engine_job in running:
        engine.finish(engine_job)
    until(lambda: not desk(client).present and not desk(client).endings)
    until(lambda: portal.call(count) <= before)


def test_a_server_that_stops_ends_what_it_can_and_hands_the_rest_back(tmp_path: Path, engine: FakeEngine) -> None:
    settings = Settings(data_dir=tmp_path, history=False, jobs_at_once=2)
    engine.held = True
    with TestClient(create_app(settings, engine, Options(settings.options_file))) as client:
        ids = [promise(client) for _ in range(3)]
        until(lambda: len(engine.specs) == 2)
        stopping = desk(client).stopping
        assert client.portal is not None
        client.portal.call(stopping.begin, 1.0)
        engine.finish("job0")
        began = time.monotonic()
    assert time.monotonic() - began < 3
    later = FakeEngine()
    with TestClient(create_app(settings, later, Options(settings.options_file))) as client:
        until(lambda: all(state(client, job_id) == "done" for job_id in ids))
        attempts = [client.get(f"/jobs/{job_id}").json()["attempts"] for job_id in ids]
    assert (len(later.specs), attempts) == (2, [1, 1, 1])


def test_who_follows_a_job_of_a_server_that_stops_is_let_go(client: TestClient, engine: FakeEngine) -> None:
    engine.held = True
    job_id = promise(client)
    assert client.portal is not None
    threading.Timer(0.3, client.portal.call, [desk(client).stopping.begin, 0.0]).start()
    told = client.get(f"/jobs/{job_id}/events").text
    assert "event: started" in told or "event: queued" in told
    assert "event: done" not in told


def test_jobs_wait_for_a_device_that_has_stopped(client: TestClient, engine: FakeEngine) -> None:
    engine.is_ready = False
    job_id = promise(client)
    time.sleep(0.3)
    assert state(client, job_id) == "queued"
    engine.is_ready = True
    until(lambda: state(client, job_id) == "done")


def test_a_job_that_may_take_servers_down_is_done_alone(client: TestClient, engine: FakeEngine, tmp_path: Path) -> None:
    engine.is_ready = False
    engine.held = True
    ids = [promise(client, seed=seed) for seed in range(4)]
    with sqlite3.connect(tmp_path / "history.db") as opened:
        opened.execute("UPDATE jobs SET attempts = ? WHERE id = ?", (ledger.SUSPECT_AFTER, ids[1]))
    opened.close()
    engine.is_ready = True
    for expected in (1, 1, 2):
        until(lambda: len([job for job in engine.jobs() if job.state == "running"]) == expected)  # noqa: B023
        time.sleep(0.2)
        running = [job for job in engine.jobs() if job.state == "running"]
        assert len(running) == expected
        for job in running:
            engine.finish(job.job_id)
    until(lambda: all(state(client, job_id) == "done" for job_id in ids))


def test_what_a_server_began_and_forgot_is_begun_again(
    client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    monkeypatch.setattr(dispatch, "LEASE_S", 0.2)
    monkeypatch.setattr(ledger, "LEASE_S", 0.2)
    engine.is_ready = False
    job_id = promise(client)
    taken = desk(client).books().ledger.claim()  # and nothing comes of it
    assert taken is not None
    assert replace(taken[0], state="queued").id == job_id
    engine.is_ready = True
    until(lambda: state(client, job_id) == "done")
