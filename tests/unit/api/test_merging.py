"""What a client sees of a merge: the order that goes to the engine, progress, an interrupt, refusals."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.errors import BadRequest
from darkroom.jobs.merging import MergeOrder, Notes
from darkroom.jobs.networks import VaeInfo
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import MODELS, SHA, FakeEngine


@contextmanager
def merging(client: TestClient, engine: FakeEngine, **fields: Any) -> Iterator[list[Any]]:
    """A merge that goes on for as long as this is entered; the answer is in the list afterwards."""
    engine.held = True
    answers: list[Any] = []
    before = len(engine.merges)

    def ask() -> None:
        answers.append(client.post("/models/merge", json={"a": "small-a", "b": "bar", **fields}))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        while len(engine.merges) == before and thread.is_alive():
            time.sleep(0.002)
        yield answers
    finally:
        engine.held = False
        thread.join(10)


def test_a_short_request_is_filled_up_with_the_original_s_defaults(client: TestClient, engine: FakeEngine) -> None:
    answer = client.post("/models/merge", json={"a": "small-a.safetensors", "b": "bar"})
    assert answer.status_code == 200
    assert engine.merges == [MergeOrder(a="small-a", b="sub/bar", method="Weighted sum", multiplier=0.3)]
    body = answer.json()
    assert body.pop("seconds") >= 0
    assert body == {
        "title": MODELS[0].title,
        "model_name": "small-a",
        "hash": SHA[:10],
        "sha256": SHA,
        "filename": "/models/small-a.safetensors",
        "config": None,
    }


def test_every_field_has_its_place_in_the_order(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.autoencoders.append(VaeInfo(name="other.vae.pt", filename="/models/VAE/other.vae.pt"))
    fields = {
        "a": "small-a",
        "b": "bar",
        "c": "small-a",
        "method": "add DIFFERENCE",
        "multiplier": "1.5",
        "block_weights": "0, 0.5,1",
        "dtype": "BF16",
        "vae": "other.vae.pt",
        "discard": "model_ema",
        "name": "mine",
        "overwrite": 1,
        "config_source": "don't",
        "save_metadata": True,
        "add_recipe": False,
        "copy_metadata": False,
        "metadata": {"text": "x", "number": 3, "nested": {"a": [1]}},
    }
    assert client.post("/models/merge", json=fields).status_code == 200
    assert engine.merges == [
        MergeOrder(
            a="small-a",
            b="sub/bar",
            c="small-a",
            method="Add difference",
            multiplier=1.5,
            block_weights=(0.0, 0.5, 1.0),
            number_format="bf16",
            vae="other.vae.pt",
            discard="model_ema",
            name="mine",
            overwrite=True,
            config_source="Don't",
            notes=Notes(recipe=False, copied=False, extra=(("text", "x"), ("number", "3"), ("nested", '{"a": [1]}'))),
        )
    ]


def test_a_method_does_not_mind_checkpoints_that_it_does_not_look_at(client: TestClient, engine: FakeEngine) -> None:
    body = {"a": "small-a", "b": "nobody", "c": "nobody", "method": "No interpolation"}
    assert client.post("/models/merge", json=body).status_code == 200
    assert (engine.merges[0].b, engine.merges[0].c) == ("", "")


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"a": "nobody"}, 404, "a: 'nobody'"),
        ({"a": "small"}, 404, "a: 'small' is not allowed; known: small-a"),
        ({"b": ""}, 422, "b: ''"),
        ({"b": "nobody"}, 404, "b: 'nobody'"),
        ({"method": "Add difference"}, 422, "c: ''"),
        ({"method": "sum"}, 422, "method: 'sum' is not allowed; Weighted sum, Add difference, No interpolation"),
        ({"multiplier": 2.5}, 422, "multiplier: 2.5 is not allowed; numbers from -2 to 2"),
        ({"block_weights": [0.5, -3]}, 422, "block_weights: -3.0 is not allowed"),
        ({"block_weights": [0.5] * 101}, 422, "block_weights: '101 numbers'"),
        ({"dtype": "int8"}, 422, "dtype: 'int8' is not allowed; keep, fp32, fp16, bf16"),
        ({"vae": "nobody"}, 422, "vae: 'nobody' is not allowed; None"),
        ({"metadata": {"x": "y" * 1_000_000}}, 422, "metadata: '1000001 characters'"),
        ({"multiplyer": 0.5}, 422, "multiplyer"),
        ({"config_source": "A"}, 422, "config_source: 'A' is not allowed; A, B or C, B, C, Don't"),
    ],
)
def test_what_is_not_allowed_is_refused_by_field_and_value(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("/models/merge", json={"a": "small-a", "b": "bar", **fields})
    assert answer.status_code == status
    assert said in str(answer.json())
    assert engine.merges == []


@pytest.mark.parametrize("weights", ["0.1,x", [0.1, "x"], [None], 5, {"a": 1}, [float("1e999")]])
def test_block_weights_that_are_no_numbers_are_refused(client: TestClient, weights: object) -> None:
    import json

    body = json.dumps({"a": "small-a", "b": "bar", "block_weights": weights})
    answer = client.post("/models/merge", content=body)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "block_weights"])


def test_what_the_engine_refuses_is_told(client: TestClient, engine: FakeEngine) -> None:
    engine.failure = BadRequest("discard", "(", "a regular expression")
    answer = client.post("/models/merge", json={"a": "small-a", "b": "bar"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")


def test_a_merge_needs_a_password_where_the_server_has_one(serve: Serve) -> None:
    client = serve(api_auth="me:secret")
    body = {"a": "small-a", "b": "bar"}
    assert client.post("/models/merge", json=body).status_code == 401
    assert client.post("/models/merge", json=body, auth=("me", "secret")).status_code == 200


def test_a_merge_shows_up_in_progress_until_it_ends(client: TestClient, engine: FakeEngine) -> None:
    with merging(client, engine, task_id="mine") as answers:
        shown = client.get("/sdapi/v1/progress").json()
        assert shown["progress"] == pytest.approx(0.26)
        assert shown["textinfo"] == "Merging A and B"
        state = shown["state"]
        assert (state["job"], state["job_count"], state["sampling_step"], state["sampling_steps"]) == (
            "model-merge", 1, 1, 4,
        )  # fmt: skip
        assert len(state["job_timestamp"]) == 14
        task = client.post("/internal/progress", json={"id_task": "mine"}).json()
        assert (task["active"], task["progress"], task["textinfo"]) == (True, 0.25, "Merging A and B")
        assert client.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["mine"]}
    assert answers[0].status_code == 200
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0
    assert client.post("/internal/progress", json={"id_task": "mine"}).json()["completed"]
    assert client.get("/internal/pending-tasks").json() == {"size": 0, "tasks": []}


def test_an_interrupt_ends_a_merge(client: TestClient, engine: FakeEngine) -> None:
    with merging(client, engine) as answers:
        assert client.post("/sdapi/v1/interrupt").json() == {}
        assert client.get("/sdapi/v1/progress").status_code == 200
        for _ in range(1000):
            if answers:
                break
            time.sleep(0.002)
    assert answers[0].status_code != 200
    assert "interrupted" in str(answers[0].json())


def test_a_second_merge_waits_for_the_first(client: TestClient, engine: FakeEngine) -> None:
    with merging(client, engine, task_id="one"):
        second = threading.Thread(
            target=client.post, args=("/models/merge",), kwargs={"json": {"a": "small-a", "b": "bar", "task_id": "two"}}
        )
        second.start()
        while client.get("/internal/pending-tasks").json()["size"] < 2:
            time.sleep(0.002)
        waiting = client.post("/internal/progress", json={"id_task": "two"}).json()
        assert (waiting["active"], waiting["queued"], waiting["textinfo"]) == (False, True, "Waiting...")
        assert len(engine.merges) == 1
    second.join(10)
    assert len(engine.merges) == 2


def test_no_more_merges_wait_than_requests_may(serve: Serve, engine: FakeEngine) -> None:
    client = serve(max_queue=1)
    with merging(client, engine):
        answer = client.post("/models/merge", json={"a": "small-a", "b": "bar"})
        assert (answer.status_code, answer.json()["code"]) == (429, "busy")
        assert answer.headers["Retry-After"]
    assert client.post("/models/merge", json={"a": "small-a", "b": "bar"}).status_code == 200


def test_pictures_come_before_merges_in_progress(client: TestClient, engine: FakeEngine) -> None:
    with merging(client, engine):
        assert client.get("/sdapi/v1/progress").json()["state"]["job"] == "model-merge"
        thread = threading.Thread(target=client.post, args=("/sdapi/v1/txt2img",), kwargs={"json": {"steps": 7}})
        thread.start()
        while not engine.jobs():
            time.sleep(0.002)
        assert client.get("/sdapi/v1/progress").json()["state"]["job"] == "scripts_txt2img"
        engine.finish("job0")
        thread.join(10)
