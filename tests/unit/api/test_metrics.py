"""What the server tells Prometheus about itself."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from darkroom.engine.client import DeviceMemory, EngineStats, Histogram
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine
from tests.unit.api.test_jobs import SMALL, TXT2IMG, ask, ended, wait_for

ANN = ("ann", "secret")


def samples(client: TestClient) -> dict[str, float]:
    """Every number by its name and labels, as Prometheus would show it."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = float(sample.value)
    return found


def test_answers_are_counted_by_family_and_status(client: TestClient) -> None:
    client.post(TXT2IMG, json=SMALL)
    client.post(TXT2IMG, json={**SMALL, "steps": 0})
    client.get("/jobs/nope")
    for path in ("/nowhere", "/else/where"):
        client.get(path)
    found = samples(client)
    assert found['darkroom_http_responses_total{family="sdapi",status="200"}'] == 1
    assert found['darkroom_http_responses_total{family="sdapi",status="422"}'] == 1
    assert found['darkroom_http_responses_total{family="jobs",status="404"}'] == 1
    assert found['darkroom_http_responses_total{family="other",status="404"}'] == 2
    assert found['darkroom_http_seconds_count{family="sdapi"}'] == 2


def test_errors_are_counted_by_their_code(client: TestClient, engine: FakeEngine) -> None:
    client.post(TXT2IMG, json={**SMALL, "steps": 0})
    client.post("/v1/images/generations", json={"prompt": "x", "model": "nobody's"})
    client.get("/jobs/nope")
    client.get("/nowhere")
    engine.crash = RuntimeError("boom")
    client.post(TXT2IMG, json=SMALL)
    found = samples(client)
    errors = {name: count for name, count in found.items() if name.startswith("darkroom_errors_total")}
    assert errors == {
        'darkroom_errors_total{code="bad_request",family="sdapi"}': 1,
        'darkroom_errors_total{code="model_not_found",family="openai"}': 1,
        'darkroom_errors_total{code="unknown_name",family="jobs"}': 1,
        'darkroom_errors_total{code="404",family="other"}': 1,
        'darkroom_errors_total{code="internal",family="sdapi"}': 1,
    }


def test_an_exception_that_nobody_expected_is_counted_as_500(client: TestClient, engine: FakeEngine) -> None:
    engine.crash = RuntimeError("boom")
    client.post(TXT2IMG, json=SMALL)
    assert samples(client)['darkroom_http_responses_total{family="sdapi",status="500"}'] == 1


def test_the_engine_s_numbers_are_told_by_kind_and_model(client: TestClient, engine: FakeEngine) -> None:
    rows = Histogram(bounds=(1.0, 2.0, 4.0), counts=(3, 0, 2, 1), total=20.0)
    waits = Histogram(bounds=(0.5,), counts=(1, 1), total=9.0)
    engine.counted = EngineStats(
        rows={"Denoise": rows},
        seconds={"Denoise": 1.5},
        waits={"small-a": waits},
        services={"small-a": waits},
        ended={"done": 2, "failed": 1},
        resident_bytes=12,
    )
    found = samples(client)
    assert found['darkroom_batches_total{kind="Denoise"}'] == 6
    assert found['darkroom_evaluations_total{kind="Denoise"}'] == 20
    assert found['darkroom_batch_seconds_total{kind="Denoise"}'] == 1.5
    buckets = [found[f'darkroom_batch_rows_bucket{{kind="Denoise",le="{le}"}}'] for le in ("1", "2", "4", "+Inf")]
    assert buckets == [3, 3, 5, 6]
    assert found['darkroom_job_wait_seconds_sum{model="small-a"}'] == 9
    assert found['darkroom_job_service_seconds_count{model="small-a"}'] == 2
    assert found['darkroom_engine_jobs_ended_total{state="failed"}'] == 1
    assert found['darkroom_engine_jobs_ended_total{state="cancelled"}'] == 0
    assert found["darkroom_resident_model_bytes{}"] == 12


def test_memory_is_told_where_the_device_has_its_own(client: TestClient, engine: FakeEngine) -> None:
    assert not any("device_memory" in name for name in samples(client))
    pair = (0, 0)
    memory = DeviceMemory(
        free=3, total=10, active=pair, allocated=(5, 6), reserved=(7, 8), inactive=pair, retries=0, out_of_memory=2
    )
    engine.device_memory = memory
    found = samples(client)
    assert found['darkroom_device_memory_bytes{kind="free"}'] == 3
    assert found['darkroom_device_memory_bytes{kind="allocated"}'] == 5
    assert found["darkroom_device_out_of_memory_total{}"] == 2
    engine.device_memory = replace(memory, free=1)
    assert samples(client)['darkroom_device_memory_bytes{kind="free"}'] == 1


def test_queues_are_told(serve: Serve, engine: FakeEngine) -> None:
    engine.held = True
    client = serve(jobs_at_once=1)
    assert samples(client)['darkroom_promised_jobs{state="queued"}'] == 0
    ids = [ask(client).json()["id"] for _ in range(3)]
    wait_for(client, ids[0], lambda job: bool(engine.jobs()))
    found = samples(client)
    assert found['darkroom_promised_jobs{state="queued"}'] == 2
    assert found['darkroom_promised_jobs{state="running"}'] == 1
    assert found['darkroom_engine_jobs{state="running"}'] == 1
    assert found["darkroom_database_up{}"] == 1
    engine.held = False
    for job_id in reversed(ids):
        client.delete(f"/jobs/{job_id}")


def test_two_applications_count_apart(serve: Serve) -> None:
    first, second = serve(), serve()
    first.get("/nowhere")
    assert not any("other" in name for name in samples(second))


@pytest.mark.parametrize("is_open", [False, True])
def test_numbers_are_behind_the_password_unless_the_operator_says_otherwise(serve: Serve, is_open: bool) -> None:
    client = serve(api_auth="ann:secret", open_metrics=is_open)
    assert client.get("/metrics").status_code == (200 if is_open else 401)
    assert client.get("/metrics", auth=ANN).status_code == 200
    assert client.get("/metrics/").status_code != 200
    assert client.get("/jobs").status_code == 401


def test_a_database_that_cannot_be_read_takes_nothing_else_along(serve: Serve) -> None:
    client = serve(database_url="postgresql://nobody@127.0.0.1:1/none")
    found = samples(client)
    assert found["darkroom_database_up{}"] == 0
    assert found["darkroom_ready{}"] == 1


def test_a_promise_is_counted_when_it_ends(client: TestClient) -> None:
    ended(client, ask(client))
    assert samples(client)['darkroom_promised_jobs{state="queued"}'] == 0
