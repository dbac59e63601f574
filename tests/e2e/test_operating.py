"""What others see of a running server: numbers, a log for programs, and calls."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import serving

SMALL = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 1}


class Heard(BaseHTTPRequestHandler):
    """Remembers whom it was called by; hears nothing as long as it is `deaf`."""

    calls: list[tuple[str, str]]
    deaf = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append((self.headers["X-Darkroom-Event"], self.headers["X-Darkroom-Delivery"]))
        self.send_response(503 if self.deaf else 200)
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Heard]]]:
    """An address that may be called, and what was heard there."""
    bound: type[Heard] = type("Bound", (Heard,), {"calls": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", bound
    server.shutdown()
    thread.join()
    server.server_close()


def wait_for_calls(heard: type[Heard], count: int) -> None:
    deadline = time.monotonic() + 30
    while len(heard.calls) < count:
        assert time.monotonic() < deadline, heard.calls
        time.sleep(0.05)


def test_a_call_that_nobody_heard_is_made_again_by_the_next_server(
    tmp_path: Path, receiver: tuple[str, type[Heard]]
) -> None:
    url, heard = receiver
    flags = ("--threads", "1", "--webhook-private", "--webhook-wait-s", "1")
    with serving(tmp_path, *flags) as server:
        headers = {"Prefer": "respond-async", "X-Darkroom-Webhook": url}
        job_id = server.client.post("/sdapi/v1/txt2img", json=SMALL, headers=headers).json()["id"]
        wait_for_calls(heard, 1)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    before, heard.deaf = len(heard.calls), False
    with serving(tmp_path, *flags) as server:
        # Killed within a call, it is made again once that counts as lost; mostly it was written down as not heard.
        deadline = time.monotonic() + 90
        while (call := server.get(f"/jobs/{job_id}")["webhooks"][0])["state"] != "delivered":
            assert time.monotonic() < deadline, call
            time.sleep(0.1)
    assert len(heard.calls) == before + 1
    assert set(heard.calls) == {("done", call["id"])}


def test_numbers_and_lines_tell_of_the_jobs(tmp_path: Path) -> None:
    with serving(tmp_path, "--log-format", "json", "--threads", "1", "--api-auth", "ann:secret", "--open-metrics",
                 auth=("ann", "secret")) as server:  # fmt: skip
        answer = server.client.post("/sdapi/v1/txt2img", json=SMALL)
        assert answer.status_code == 200, answer.text
        job_id = answer.headers["X-Job-Id"]
        later = server.client.post("/sdapi/v1/txt2img", json=SMALL, headers={"Prefer": "respond-async"})
        promised = later.json()["id"]
        while server.get(f"/jobs/{promised}")["ended_at"] is None:
            pass
        httpx.get(f"{server.url}/metrics")
        text = httpx.get(f"{server.url}/metrics").text
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers['darkroom_evaluations_total{kind="Denoise"}']) >= 2 * 2
    assert float(numbers['darkroom_engine_jobs_ended_total{state="done"}']) == 2
    assert float(numbers["darkroom_resident_model_bytes"]) > 1e6
    assert float(numbers["process_resident_memory_bytes"]) > 1e7
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    accesses = [line for line in lines if line["logger"] == "uvicorn.access" and line["method"] == "POST"]
    assert [line["job_id"] for line in accesses] == [job_id, promised]
    assert any(line["message"] == f"job {promised}: done" and line["job_id"] == promised for line in lines)
    assert lines[0]["message"].startswith("Darkroom listens on http://")
