from typing import Any

from starlette.testclient import TestClient

from tests.unit.api.fake_engine import FakeEngine
from tests.unit.api.test_progress import engine, generating

__all__ = ["engine"]

IDLE = {
    "active": False,
    "queued": False,
    "completed": False,
    "progress": None,
    "eta": None,
    "live_preview": None,
    "id_live_preview": -1,
    "textinfo": "Waiting...",
}


def ask(client: TestClient, name: str | None, **fields: object) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/internal/progress", json={"id_task": name, **fields}).json()
    return found


def test_a_task_that_nobody_knows_is_waited_for(client: TestClient) -> None:
    assert ask(client, "nothing") == IDLE
    assert ask(client, None) == IDLE


def test_a_task_is_found_by_its_own_name_while_it_runs_and_after(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, force_task_id="mine", steps=10):
        engine.set("job0", step=5)
        running = ask(client, "mine")
        assert (running["active"], running["queued"], running["completed"]) == (True, False, False)
        assert client.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["mine"]}
        engine.finish("job0")
    assert ask(client, "mine") == {**IDLE, "completed": True}
    assert client.get("/internal/pending-tasks").json() == {"size": 0, "tasks": []}


def test_a_waiting_task_knows_its_place(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine, force_task_id="mine"):
        engine.set("job0", state="queued")
        assert ask(client, "mine") == {**IDLE, "queued": True, "textinfo": "In queue: 1/1"}
        engine.finish("job0")


def test_a_task_without_a_name_gets_one(client: TestClient, engine: FakeEngine) -> None:
    with generating(client, engine):
        [name] = client.get("/internal/pending-tasks").json()["tasks"]
        assert name == "task(txt2img-JOB0)"
        assert ask(client, name)["active"]
        engine.finish("job0")
