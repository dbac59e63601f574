"""Whoever asked to be called is told what became of a job: signed, and again and again until it is heard."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.api.jobs.webhooks import Undelivered, post
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine
from tests.unit.api.test_jobs import SMALL, TXT2IMG, ask, wait_for

SECRET = "a secret of both sides"
HERE: dict[str, Any] = {"webhook_private": True, "webhook_key": SECRET, "webhook_wait_s": 0.05}


@dataclass
class Receiver:
    """Remembers its calls; answers with `statuses` one after another, the last for ever."""

    statuses: list[int] = field(default_factory=lambda: [204])
    silent_s: float = 0.0
    port: int = 0
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=t"

    def events(self) -> list[str]:
        return [headers["x-darkroom-event"] for _, headers, _ in self.heard]


class Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.receiver.heard.append((self.path, {}, b""))
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        told = self.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told.heard.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        time.sleep(told.silent_s)
        status = told.statuses.pop(0) if len(told.statuses) > 1 else told.statuses[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()
    handler = type("Bound", (Handler,), {"receiver": told})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def call_of(client: TestClient, job_id: str, *states: str) -> dict[str, Any]:
    """The job's only call once it stands so."""

    def stands_so(job: dict[str, Any]) -> bool:
        return any(call["state"] in states for call in job["webhooks"])

    [call] = wait_for(client, job_id, stands_so)["webhooks"]
    return dict(call)


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    parts = dict(part.split("=", 1) for part in headers["x-darkroom-signature"].split(","))
    expected = hmac.new(secret.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 300


def test_a_job_s_end_is_told_once_and_signed(serve: Serve, receiver: Receiver) -> None:
    client = serve(**HERE)
    answer = client.post(TXT2IMG, json=SMALL, params={"async": "true", "webhook": receiver.url})
    assert answer.status_code == 202
    call = call_of(client, answer.json()["id"], "delivered")
    [(path, headers, body)] = receiver.heard
    assert path == "/hook?token=t"
    told = json.loads(body)
    assert (told["event"], told["id"], told["job"]["state"]) == ("done", call["id"], "done")
    assert told["job"]["images"][0]["url"].startswith("/images/")
    assert headers["x-darkroom-delivery"] == call["id"]
    assert verified(SECRET, headers, body)
    assert not verified("another", headers, body)
    assert not verified(SECRET, headers, body + b" ")
    assert (call["tries"], call["error"], call["next_at"]) == (1, None, None)


def test_what_is_not_heard_is_told_again_under_the_same_id(serve: Serve, receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 404, 200]
    client = serve(**HERE, webhook_tries=9)
    answer = ask(client, headers={"X-Darkroom-Webhook": receiver.url})
    call = call_of(client, answer.json()["id"], "delivered")
    assert call["tries"] == 4
    assert [path for path, _, _ in receiver.heard] == ["/hook?token=t"] * 4  # no redirect was followed
    assert {headers["x-darkroom-delivery"] for _, headers, _ in receiver.heard} == {call["id"]}
    assert len({body for _, _, body in receiver.heard}) == 1


def test_it_is_given_up_in_the_end_and_the_job_says_why(serve: Serve, receiver: Receiver) -> None:
    receiver.statuses = [503]
    client = serve(**HERE, webhook_tries=2)
    answer = ask(client, headers={"X-Darkroom-Webhook": receiver.url})
    call = call_of(client, answer.json()["id"], "given_up")
    assert (call["tries"], call["error"]) == (2, "it answered 503")
    assert client.get(f"/jobs/{answer.json()['id']}").json()["state"] == "done"
    assert 'darkroom_webhook_calls_total{outcome="given_up"} 1.0' in client.get("/metrics").text


def test_a_restart_goes_on_where_it_was(serve: Serve, receiver: Receiver, engine: FakeEngine, tmp_path: Path) -> None:
    receiver.statuses = [500, 200]
    settings = Settings(**{**HERE, "webhook_wait_s": 1.0, "data_dir": tmp_path})
    with TestClient(create_app(settings, engine, Options())) as client:
        answer = ask(client, headers={"X-Darkroom-Webhook": receiver.url})
        wait_for(client, answer.json()["id"], lambda job: bool(job["webhooks"][0]["error"]))
    again = serve(**HERE)
    assert call_of(again, answer.json()["id"], "delivered")["tries"] == 2


def test_a_failure_is_told_to_whoever_asked_for_failures(serve: Serve, receiver: Receiver, engine: FakeEngine) -> None:
    client = serve(**HERE)
    wanted = {"X-Darkroom-Webhook": receiver.url, "X-Darkroom-Webhook-Events": "failed, cancelled"}
    done = ask(client, headers=wanted).json()["id"]
    call_of(client, done, "unwanted")
    engine.crash = RuntimeError("boom")
    failed = ask(client, headers=wanted).json()["id"]
    call_of(client, failed, "delivered")
    assert receiver.events() == ["failed"]
    assert b"boom" not in receiver.heard[0][2]


def test_the_beginning_is_told_while_the_job_is_at_work(serve: Serve, receiver: Receiver, engine: FakeEngine) -> None:
    engine.held = True
    client = serve(**HERE)
    params = {"async": "true", "webhook": receiver.url, "webhook_events": "started,interrupted"}
    job_id = client.post(TXT2IMG, json=SMALL, params=params).json()["id"]
    wait_for(client, job_id, lambda job: bool(receiver.heard and engine.jobs()))
    client.post(f"/jobs/{job_id}/interrupt")
    wait_for(client, job_id, lambda job: [call["state"] for call in job["webhooks"]] == ["delivered"] * 2)
    assert receiver.events() == ["started", "interrupted"]


def test_a_slow_receiver_keeps_no_job_waiting(serve: Serve, receiver: Receiver) -> None:
    receiver.silent_s = 1.0
    client = serve(**HERE)
    began = time.monotonic()
    for _ in range(3):
        job_id = ask(client, headers={"X-Darkroom-Webhook": receiver.url}).json()["id"]
        wait_for(client, job_id, lambda job: job["state"] == "done")
    assert time.monotonic() - began < 3.0
    call_of(client, job_id, "delivered")


@pytest.mark.parametrize(
    "params",
    [
        {"webhook": "https://example.com/"},
        {"async": "true", "webhook": "ftp://example.com/"},
        {"async": "true", "webhook": "https://me:secret@example.com/"},
        {"async": "true", "webhook": "example.com"},
        {"async": "true", "webhook": "https://example.com/" + "x" * 2000},
        {"async": "true", "webhook": "https://example.com/", "webhook_events": "done,eaten"},
        {"async": "true", "webhook_events": "done"},
    ],
)
def test_what_cannot_be_called_is_refused_at_once(
    client: TestClient, engine: FakeEngine, params: dict[str, str]
) -> None:
    answer = client.post(TXT2IMG, json=SMALL, params=params)
    assert answer.status_code == 422
    assert "webhook" in answer.text
    assert engine.specs == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[fe80::1]", "192.168.1.1"],
)
def test_a_private_address_is_refused_at_once(client: TestClient, host: str) -> None:
    answer = ask(client, headers={"X-Darkroom-Webhook": f"http://{host}/"})
    assert answer.status_code == 422
    assert "public" in answer.text


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
def test_a_name_of_a_private_address_is_never_called(serve: Serve, receiver: Receiver, host: str) -> None:
    client = serve(**{**HERE, "webhook_private": False, "webhook_tries": 1})
    answer = ask(client, headers={"X-Darkroom-Webhook": f"http://{host}:{receiver.port}/"})
    call = call_of(client, answer.json()["id"], "given_up")
    assert call["error"] == "its host is not there, or not on the public network"
    assert receiver.heard == []


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], []])
def test_one_private_address_of_a_host_is_enough(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if not addresses:
            raise OSError
        return addresses

    with pytest.raises(Undelivered, match="not on the public network"):
        anyio.run(lambda: post("http://example.com/", b"{}", {}, resolve))


def test_a_key_of_its_own_is_made_and_kept(serve: Serve, receiver: Receiver, tmp_path: Path) -> None:
    client = serve(webhook_private=True)
    answer = ask(client, headers={"X-Darkroom-Webhook": receiver.url})
    call_of(client, answer.json()["id"], "delivered")
    file = tmp_path / "webhook-key"
    assert file.stat().st_mode & 0o077 == 0
    [(_, headers, body)] = receiver.heard
    assert verified(file.read_text(), headers, body)


def test_the_route_does_not_see_what_is_not_its_own(client: TestClient) -> None:
    params = {"async": "true", "webhook": "https://example.com/", "webhook_events": "cancelled", "x": "1"}
    answer = client.post(TXT2IMG, json=SMALL, params=params)
    request = client.get(f"/jobs/{answer.json()['id']}/request")
    assert request.headers["X-Darkroom-Query"] == "x=1"
    call_of(client, answer.json()["id"], "unwanted")
