"""A server that is told to stop in the middle of its work: clients are let down gently, and what was promised is done
by the next one.
"""

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import Json, Server, serving

LATER = {"Prefer": "respond-async"}
TXT2IMG = "/sdapi/v1/txt2img"
SMALL: Json = {"prompt": "a red apple", "steps": 8, "width": 128, "height": 128}
BIG: Json = {"prompt": "a red apple", "steps": 150, "width": 256, "height": 256}
STOPS_WITHIN_S = 25
"""Ten seconds for who waits, and one batch."""


def promise(server: Server, body: Json) -> str:
    answer = server.client.post(TXT2IMG, json=body, headers=LATER)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def wait_until_done(server: Server, ids: list[str]) -> list[Json]:
    deadline = time.monotonic() + 60
    while True:
        jobs: list[Json] = [server.get(f"/jobs/{job_id}") for job_id in ids]
        if all(job["state"] == "done" for job in jobs):
            return jobs
        assert time.monotonic() < deadline, jobs
        time.sleep(0.2)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_in_the_middle_ends_soon_and_forgets_nothing(
    tmp_path: Path, sent: signal.Signals
) -> None:
    answers: list[httpx.Response] = []
    followed: list[str] = []
    with serving(tmp_path, "--threads", "1") as server:
        ids = [promise(server, {**SMALL, "seed": seed}) for seed in range(4)]
        endless = promise(server, BIG)

        def ask() -> None:
            body = BIG if sent == signal.SIGTERM else SMALL
            answers.append(httpx.post(server.url + TXT2IMG, json=body, timeout=60))

        def follow() -> None:
            followed.append(httpx.get(f"{server.url}/jobs/{endless}/events", timeout=60).text)

        threads = [threading.Thread(target=ask), threading.Thread(target=follow)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        server.process.send_signal(sent)
        server.process.wait(STOPS_WITHIN_S)
        for thread in threads:
            thread.join()
    [answer] = answers
    if answer.status_code != 200:
        assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
        assert int(answer.headers["Retry-After"]) > 0
    [told] = followed
    assert "event: started" in told
    assert "Traceback" not in server.log.read_text()
    with serving(tmp_path, "--threads", "1") as server:
        jobs = wait_until_done(server, ids)
        assert [job["attempts"] for job in jobs] == [1] * len(ids)
        assert server.get(f"/jobs/{endless}")["state"] in ("queued", "running", "done")
        server.client.delete(f"/jobs/{endless}")
        assert len(server.get("/images?limit=500")["images"]) >= len(ids)
