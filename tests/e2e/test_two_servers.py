"""Two servers, each a process of its own, that share one PostgreSQL and one place for pictures: whoever asks either of
them is told the same, and what one of them leaves undone the other does.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.bucket import bucket
from tests.e2e.serving import Json, Server, serving
from tests.postgresql import postgres, postgres_url

__all__ = ["bucket", "postgres", "postgres_url"]

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
SMALL: Json = {"prompt": "a red apple", "steps": 3, "width": 64, "height": 64}
JOBS = 16


def promise(server: Server, seed: int, **fields: object) -> str:
    body = {**SMALL, "seed": seed, **fields}
    answer = server.client.post(TXT2IMG, json=body, headers={**LATER, "Idempotency-Key": f"n{seed}"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def wait_until_done(server: Server, ids: list[str], limit_s: float) -> list[Json]:
    deadline = time.monotonic() + limit_s
    while True:
        jobs: list[Json] = [server.get(f"/jobs/{job_id}") for job_id in ids]
        if all(job["state"] == "done" for job in jobs):
            return jobs
        assert time.monotonic() < deadline, Counter(job["state"] for job in jobs)
        time.sleep(0.3)


def worked_at(server: Server) -> set[str]:
    """The jobs that a server says it has done."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return {line["job_id"] for line in lines if line["message"] == f"job {line.get('job_id')}: done"}


def done(text: str) -> Json:
    """The last event of a stream."""
    fields = dict(line.split(": ", 1) for line in text.strip().split("\n\n")[-1].splitlines())
    assert fields["event"] == "done", fields
    found: Json = json.loads(fields["data"])
    return found


@pytest.fixture
def servers(tmp_path: Path, postgres_url: str, bucket: str) -> Iterator[tuple[Server, Server]]:
    """Two of them, with nothing in common but the database and the bucket."""
    flags = ("--threads", "1", "--no-ui", "--log-format", "json", "--jobs-at-once", "2", "--signing-key", "shared",
             "--database-url", postgres_url, "--pictures-url", bucket)  # fmt: skip
    with ExitStack() as stack:
        found = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            found.append(stack.enter_context(serving(tmp_path / name, *flags)))
        yield found[0], found[1]


def test_two_servers_share_the_work_and_one_that_is_killed_is_stood_in_for(servers: tuple[Server, Server]) -> None:
    one, other = servers
    ids = [promise(servers[seed % 2], seed) for seed in range(JOBS)]
    assert promise(other, 0) == ids[0]  # a retry, sent to the other one
    jobs = wait_until_done(one, ids, limit_s=90)
    assert {job["attempts"] for job in jobs} == {1}
    shares = [worked_at(server) & set(ids) for server in servers]
    assert shares[0]
    assert shares[1]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == set(ids)
    [strange] = list(shares[1])[:1]  # done by the other one, asked of the first
    assert one.get(f"/jobs/{strange}/result") == other.get(f"/jobs/{strange}/result")
    [image] = one.get(f"/jobs/{strange}")["images"]
    assert one.client.get(image["url"]).content == other.client.get(image["url"]).content
    assert done(one.client.get(f"/jobs/{strange}/events").text) == other.get(f"/jobs/{strange}")
    assert len(one.get("/images?limit=500")["images"]) == JOBS

    lost = promise(one, JOBS, steps=150, width=128, height=128, n_iter=4)
    first, second = at_work(lost, one, other)
    first.process.kill()
    first.process.wait()
    with httpx.stream("GET", f"{second.url}/jobs/{lost}/events", timeout=120) as answer:
        told = done("".join(answer.iter_text()))
    assert (told["state"], told["attempts"], len(told["images"])) == ("done", 2, 4)
    assert lost in worked_at(second)


def at_work(job_id: str, one: Server, other: Server) -> tuple[Server, Server]:
    """The server that works on a job, which alone can say how far it is, and the one that does not."""
    deadline = time.monotonic() + 30
    while True:
        for first, second in ((one, other), (other, one)):
            if first.get(f"/jobs/{job_id}")["progress"] > 0:
                return first, second
        assert time.monotonic() < deadline
        time.sleep(0.05)
