"""Requests that nobody waits for, and what is left of those that somebody did."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
MATRIX = [True, False, "positive", "comma", 0]
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}


def ask(client: TestClient, path: str = TXT2IMG, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(path, json={**SMALL, **fields}, headers={**LATER, **(headers or {})})


def wait_for(client: TestClient, job_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        document: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        if wanted(document):
            return document
        time.sleep(0.02)
    raise AssertionError(document)


def ended(client: TestClient, answer: Any) -> dict[str, Any]:
    return wait_for(client, answer.json()["id"], lambda job: job["ended_at"] is not None)


def test_a_promise_is_answered_at_once_and_kept(client: TestClient) -> None:
    answer = ask(client, batch_size=2)
    assert answer.status_code == 202
    job_id = answer.json()["id"]
    assert answer.headers["Location"] == f"/jobs/{job_id}"
    assert answer.headers["X-Job-Id"] == job_id
    assert answer.headers["Preference-Applied"] == "respond-async"
    job = ended(client, answer)
    assert (job["state"], job["kind"], job["progress"], job["http_status"]) == ("done", "txt2img", 1.0, 200)
    assert job["asynchronous"] is True
    assert [image["place"] for image in job["images"]] == [0, 1]


def test_a_list_tells_pictures_to_who_asks_for_them(client: TestClient) -> None:
    job = ended(client, ask(client, batch_size=2))
    [short] = client.get("/jobs").json()["jobs"]
    [full] = client.get("/jobs?pictures=true").json()["jobs"]
    assert short["images"] == []
    assert full["images"] == job["images"] != []


def test_the_result_is_the_answer_that_waiting_would_have_given(client: TestClient) -> None:
    fields: dict[str, Any] = {"seed": 5, "subseed": 6, "batch_size": 2, "alwayson_scripts": {}}
    awaited = client.post(TXT2IMG, json={**SMALL, **fields}).json()
    job = ended(client, ask(client, **fields))
    result = client.get(job["links"]["result"])
    assert result.headers["content-type"] == "application/json"
    told = result.json()
    for document in (told, awaited):
        info = json.loads(document["info"])
        info.pop("job_timestamp")
        document["info"] = info
    assert told == awaited


def test_a_seed_is_drawn_once_and_stays(client: TestClient, engine: FakeEngine) -> None:
    job = ended(client, ask(client, batch_size=2))
    request = client.get(f"/jobs/{job['id']}/request")
    assert json.loads(request.content)["prompt"] == "a cat"
    seeds = engine.specs[-1].seeds
    assert [image["seed"] for image in job["images"]] == list(seeds)
    assert json.loads(client.get(job["links"]["result"]).json()["info"])["all_seeds"] == list(seeds)


@pytest.mark.parametrize("sent", [{"params": {"async": "true"}}, {"headers": {"Prefer": "wait=5, Respond-Async"}}])
def test_there_are_two_ways_to_ask(client: TestClient, sent: dict[str, Any]) -> None:
    assert client.post(TXT2IMG, json=SMALL, **sent).status_code == 202


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/sdapi/v1/img2img", {"json": {**SMALL, "init_images": [to_base64(noise(64, 64))]}}),
        ("/sdapi/v1/extra-single-image", {"json": {"image": to_base64(noise(8, 8)), "upscaler_1": "Lanczos"}}),
        ("/sdapi/v1/interrogate", {"json": {"image": to_base64(noise(8, 8)), "model": "clip"}}),
        ("/generate/", {"json": SMALL}),
        ("/generate/", {"data": {"prompt": "a cat", "width": "64", "height": "64"}}),
        ("/v1/images/generations", {"json": {"prompt": "a cat", "size": "64x64"}}),
        (TXT2IMG, {"json": {**SMALL, "script_name": "prompt matrix", "script_args": MATRIX}}),
    ],
)  # fmt: skip
def test_every_route_that_works_can_be_asked_so(client: TestClient, path: str, sent: dict[str, Any]) -> None:
    answer = client.post(path, headers=LATER, **sent)
    assert answer.status_code == 202, answer.text
    job = ended(client, answer)
    assert job["state"] == "done", job
    assert client.get(job["links"]["result"]).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"steps": 0}, 422), ({"sampler_name": 5.5, "width": "x"}, 422), ({"script_name": "no"}, 422)],
)
def test_a_bad_request_is_refused_at_once(client: TestClient, fields: dict[str, Any], status: int) -> None:
    refused, awaited = ask(client, **fields), client.post(TXT2IMG, json={**SMALL, **fields})
    assert (refused.status_code, awaited.status_code) == (status, status)
    assert refused.json() == awaited.json()
    assert client.get("/jobs").json() == {"jobs": [], "next": None}


def test_a_retry_with_the_same_key_gets_the_first_job(client: TestClient, engine: FakeEngine) -> None:
    key = {"Idempotency-Key": "k1"}
    first, again = ask(client, headers=key), ask(client, headers=key)
    assert first.json()["id"] == again.json()["id"]
    other = ask(client, headers=key, prompt="another")
    assert other.status_code == 422
    assert "Idempotency-Key" in other.text
    ended(client, first)
    assert len(engine.specs) == 1


def test_a_client_that_waits_may_bring_a_key_too(client: TestClient, engine: FakeEngine) -> None:
    key = {"Idempotency-Key": "k2"}
    first = client.post(TXT2IMG, json=SMALL, headers=key)
    again = client.post(TXT2IMG, json=SMALL, headers=key)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert first.headers["X-Job-Id"] == again.headers["X-Job-Id"]
    assert len(engine.specs) == 1


def test_the_engine_says_why_a_job_failed(client: TestClient, engine: FakeEngine) -> None:
    answer = ask(client)
    ended(client, answer)
    engine.crash = RuntimeError("boom")
    job = ended(client, ask(client))
    assert job["state"] == "failed"
    assert "boom" not in json.dumps(job)


def test_options_of_the_time_of_asking_count(client: TestClient, engine: FakeEngine) -> None:
    engine.capacity = 0
    answer = ask(client)
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 3})
    engine.capacity = 100
    ended(client, answer)
    assert engine.specs[-1].clip_skip == 1


def test_options_of_the_time_of_asking_count_for_finished_pictures_too(client: TestClient, engine: FakeEngine) -> None:
    engine.is_ready = False  # nothing is taken yet
    fields = {"image": to_base64(noise(8, 8)), "upscaler_1": "Lanczos"}
    answer = client.post("/sdapi/v1/extra-single-image", json=fields, headers=LATER)
    assert client.post("/sdapi/v1/options", json={"samples_format": "webp"}).status_code == 200
    engine.is_ready = True
    assert [image["media_type"] for image in ended(client, answer)["images"]] == ["image/png"]


def test_a_job_that_is_at_work_is_cancelled_and_interrupted(client: TestClient, engine: FakeEngine) -> None:
    engine.held = True
    dropped = ask(client).json()["id"]
    wait_for(client, dropped, lambda job: bool(job["state"] == "running" and engine.jobs()))
    client.delete(f"/jobs/{dropped}")
    assert wait_for(client, dropped, lambda job: job["state"] == "cancelled")["images"] == []
    kept = ask(client).json()["id"]
    wait_for(client, kept, lambda job: len(engine.specs) == 2)
    client.post(f"/jobs/{kept}/interrupt")
    assert len(wait_for(client, kept, lambda job: job["state"] == "interrupted")["images"]) == 1


@pytest.mark.parametrize(
    "query", ["seed=-118732666181825380171989765018615808", f"seed={2**63}", "since=nan", "until=inf"]
)
def test_a_number_that_no_picture_can_have_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/images?{query}").status_code == 422


def test_nobody_knows_of_what_is_not_there(client: TestClient) -> None:
    for path in ("/jobs/nope", "/jobs/nope/result", "/jobs/nope/events", "/images/nope", "/images/nope/file"):
        assert client.get(path).status_code == 404
    assert client.delete("/jobs/nope").status_code == 404
    assert client.get("/jobs", params={"state": "sleeping"}).status_code == 422


def test_a_result_that_is_not_there_yet_is_said_to_be_so(client: TestClient, engine: FakeEngine) -> None:
    engine.held = True
    job_id = ask(client).json()["id"]
    answer = client.get(f"/jobs/{job_id}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
    client.delete(f"/jobs/{job_id}")


def happenings(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_events_end_with_the_job_and_go_on_where_a_client_was(client: TestClient) -> None:
    job = ended(client, ask(client))
    answer = client.get(f"/jobs/{job['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    [(event_id, name, data)] = happenings(answer.text)
    assert (name, data["state"]) == ("done", "done")
    again = client.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": event_id})
    assert [event for _, event, _ in happenings(again.text)] == ["done"]


def test_a_socket_tells_the_same(client: TestClient) -> None:
    job = ended(client, ask(client))
    with client.websocket_connect(f"/jobs/{job['id']}/ws") as socket:
        assert socket.receive_json()["event"] == "done"


def test_what_somebody_waited_for_is_kept_too(serve: Serve) -> None:
    client = serve(history=True)
    answer = client.post(TXT2IMG, json={**SMALL, "prompt": "a red door", "seed": 77})
    job = wait_for(client, answer.headers["X-Job-Id"], lambda job: job.get("state") == "done")
    assert (job["asynchronous"], job["images"][0]["seed"]) == (False, 77)
    file = client.get(job["images"][0]["url"])
    assert file.headers["content-type"] == "image/png"
    assert base64.b64encode(file.content).decode() == answer.json()["images"][0]
    assert client.get(job["images"][0]["thumbnail"]).headers["content-type"] == "image/webp"


def test_pictures_are_found_again(serve: Serve) -> None:
    client = serve(history=True)
    for prompt, seed in (("a red door", 1), ("a blue door", 2), ("a 100% cat", 3)):
        answer = client.post(TXT2IMG, json={**SMALL, "prompt": prompt, "seed": seed})
        wait_for(client, answer.headers["X-Job-Id"], lambda job: job.get("state") == "done")

    def seeds(**wanted: Any) -> list[int]:
        return [image["seed"] for image in client.get("/images", params=wanted).json()["images"]]

    assert seeds() == [3, 2, 1]
    assert seeds(text="DOOR red") == [1]
    assert seeds(text="100%") == [3]
    assert seeds(seed=2) == [2]
    assert seeds(model="small-a") == [3, 2, 1]
    assert seeds(limit=1) == [3]
    image = client.get("/images", params={"seed": 2}).json()["images"][0]
    assert seeds(before=image["id"]) == [1]
    assert client.put(f"/images/{image['id']}/tags", json={"tags": ["nice", "door"]}).json()["tags"] == ["door", "nice"]
    assert seeds(tag="nice") == [2]
    assert client.put(f"/images/{image['id']}/tags", json={"tags": [""]}).status_code == 422
    assert client.delete(f"/images/{image['id']}").status_code == 204
    assert seeds() == [3, 1]
    assert client.get(image["url"]).status_code == 404


def test_addresses_can_take_the_place_of_pictures(client: TestClient) -> None:
    answer = client.post(TXT2IMG, json=SMALL, params={"response": "url"})
    [address] = answer.json()["images"]
    assert client.get(address).headers["content-type"] == "image/png"
    for wrong in (address[:-1] + ("0" if address[-1] != "0" else "1"), address.replace("expires=", "expires=9")):
        assert client.get(wrong).status_code == 403


def test_an_ended_job_can_be_forgotten(client: TestClient) -> None:
    job = ended(client, ask(client))
    assert client.delete(f"/jobs/{job['id']}").json()["state"] == "done"
    client.delete(f"/jobs/{job['id']}", params={"forget": True})
    assert client.get(f"/jobs/{job['id']}").status_code == 404
    assert client.get(job["images"][0]["url"]).status_code == 404


def test_a_job_can_be_done_again(client: TestClient, engine: FakeEngine) -> None:
    job = ended(client, ask(client))
    again = client.post(f"/jobs/{job['id']}/rerun")
    assert again.status_code == 202
    other = ended(client, again)
    assert other["id"] != job["id"]
    assert other["images"][0]["sha256"] == job["images"][0]["sha256"]
    assert engine.specs[0].seeds == engine.specs[1].seeds


def test_a_client_may_want_the_picture_and_nothing_else(serve: Serve) -> None:
    client = serve(history=True)
    answer = client.post(TXT2IMG, json={**SMALL, "seed": 4}, headers={"Accept": "image/png, image/*;q=0.5"})
    assert (answer.headers["content-type"], answer.headers["X-Seed"]) == ("image/png", "4")
    assert answer.content.startswith(b"\x89PNG")
    job = wait_for(client, answer.headers["X-Job-Id"], lambda job: job.get("state") == "done")
    assert client.get(job["images"][0]["url"]).content == answer.content
    refused = client.post(TXT2IMG, json={"steps": -1}, headers={"Accept": "image/*"})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/json")
