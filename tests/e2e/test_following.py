"""Following a job over a real connection: a WebSocket tells what Server-Sent Events tell; who leaves is forgotten."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.e2e.serving import Json, Server, serving

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
BODY: Json = {"prompt": "a red apple", "steps": 150, "width": 64, "height": 64, "seed": 5}
"""Long enough to be followed: a quick machine makes a small picture of few steps before anybody connects."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("following"), "--threads", "1", "--no-ui") as found:
        yield found
        assert "Traceback" not in found.log.read_text()


def promise(server: Server) -> str:
    answer = server.client.post(TXT2IMG, json=BODY, headers=LATER)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def socket_of(server: Server, job_id: str, query: str = "") -> str:
    return f"ws{server.url.removeprefix('http')}/jobs/{job_id}/ws{query}"


def names(events: list[Json]) -> list[str]:
    return list(dict.fromkeys(one["event"] for one in events))


def test_a_socket_tells_a_job_from_the_beginning_to_the_end(server: Server) -> None:
    job_id = promise(server)
    with connect(socket_of(server, job_id, "?previews=true")) as socket:
        told = [json.loads(message) for message in socket]
    assert {"started", "progress"} <= set(names(told)) <= {"queued", "started", "progress", "preview", "done"}
    last = told[-1]
    assert (last["event"], last["data"]["id"], len(last["data"]["images"])) == ("done", job_id, 1)
    fractions = [one["data"]["progress"] for one in told if one["event"] == "progress"]
    assert fractions == sorted(fractions)
    with connect(socket_of(server, job_id, f"?last_event_id={told[0]['id']}")) as socket:
        assert names([json.loads(message) for message in socket]) == ["done"]
    events = server.client.get(f"/jobs/{job_id}/events").text
    assert f"id: {last['id']}\nevent: done\n" in events


def test_a_socket_of_no_job_is_closed_with_the_reason(server: Server) -> None:
    with connect(socket_of(server, "0" * 24)) as socket, pytest.raises(ConnectionClosedError, match=r"1008.*job"):
        socket.recv()


def test_who_leaves_in_the_middle_is_forgotten_and_the_job_goes_on(server: Server) -> None:
    job_id = promise(server)
    for _ in range(3):
        with connect(socket_of(server, job_id)) as socket:
            socket.recv()
        with httpx.stream("GET", f"{server.url}/jobs/{job_id}/events") as answer:
            next(answer.iter_lines())
    deadline = time.monotonic() + 60
    while (job := server.get(f"/jobs/{job_id}"))["state"] != "done":
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
