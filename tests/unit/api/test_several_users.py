"""Where users log in, each sees and stops only what is his or hers."""

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine

USERS = {"api_auth": "ann:secret,ben:secret"}
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}
TXT2IMG = "/sdapi/v1/txt2img"


def as_user(name: str, **headers: str) -> dict[str, Any]:
    token = base64.b64encode(f"{name}:secret".encode()).decode()
    return {"headers": {"Authorization": f"Basic {token}", **headers}}


@pytest.fixture
def shared(serve: Serve) -> TestClient:
    return serve(**USERS)


@pytest.fixture
def at_work(shared: TestClient, engine: FakeEngine) -> Iterator[None]:
    """Ann waits for a picture."""
    engine.held = True
    thread = threading.Thread(target=shared.post, args=(TXT2IMG,), kwargs={"json": SMALL, **as_user("ann")})
    thread.start()
    deadline = time.monotonic() + 10
    while not engine.jobs() and time.monotonic() < deadline:
        time.sleep(0.01)
    engine.set("job0", step=1)
    yield
    engine.finish("job0")
    thread.join()


def job_count(client: TestClient, name: str) -> int:
    progress = client.get("/sdapi/v1/progress", **as_user(name)).json()
    return int(progress["state"]["job_count"])


def test_progress_is_that_of_one_s_own_jobs(shared: TestClient, at_work: None) -> None:
    assert (job_count(shared, "ann"), job_count(shared, "ben")) == (1, 0)
    assert shared.get("/internal/pending-tasks", **as_user("ben")).json() == {"size": 0, "tasks": []}
    assert shared.get("/internal/pending-tasks", **as_user("ann")).json()["size"] == 1


def test_nobody_stops_another_one_s_picture(shared: TestClient, engine: FakeEngine, at_work: None) -> None:
    shared.post("/sdapi/v1/interrupt", **as_user("ben"))
    assert engine.status("job0").state == "running"
    shared.post("/sdapi/v1/interrupt", **as_user("ann"))
    assert engine.status("job0").state == "interrupted"


def promise(client: TestClient, name: str) -> str:
    answer = client.post(TXT2IMG, json=SMALL, **as_user(name, Prefer="respond-async"))
    job_id = str(answer.json()["id"])
    deadline = time.monotonic() + 10
    while client.get(f"/jobs/{job_id}", **as_user(name)).json()["state"] != "done" and time.monotonic() < deadline:
        time.sleep(0.02)
    return job_id


def test_jobs_and_pictures_are_seen_by_their_owner_alone(shared: TestClient) -> None:
    job_id = promise(shared, "ann")
    document = shared.get(f"/jobs/{job_id}", **as_user("ann")).json()
    assert document["owner"] == "ann"
    image = document["images"][0]
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/result", f"/jobs/{job_id}/events", image["url"]):
        assert shared.get(path, **as_user("ann")).status_code == 200
        assert shared.get(path, **as_user("ben")).status_code == 404
        assert shared.get(path).status_code == 401
    assert shared.delete(f"/jobs/{job_id}", **as_user("ben")).status_code == 404
    assert shared.get("/jobs", **as_user("ben")).json()["jobs"] == []
    assert shared.get("/images?owner=ann", **as_user("ben")).json()["images"] == []
    assert len(shared.get("/images", **as_user("ann")).json()["images"]) == 1


def test_a_signed_address_opens_for_anybody_and_no_other_does(shared: TestClient) -> None:
    answer = shared.post(TXT2IMG, json=SMALL, params={"response": "url"}, **as_user("ann"))
    [address] = answer.json()["images"]
    assert shared.get(address).status_code == 200
    bare = address.partition("?")[0]
    assert shared.get(bare).status_code == 401
    queries = (
        "signature=",
        "signature=x",
        "expires=1&signature=1",
        "expires=9999999999&signature=%C3%A4",
        "x-signature=1",
    )
    for forged in (f"{bare}?{query}" for query in queries):
        assert shared.get(forged).status_code in {403, 404}, forged
