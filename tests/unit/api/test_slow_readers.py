"""Clients that do not read: they are let go, and what they asked for with them. Over real sockets."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from starlette.responses import Response, StreamingResponse

from darkroom.api.app import create_app
from darkroom.api.server import Server, impatient
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine

LIMIT_S: Final = 1.0
LARGE: Final = 16_000_000
"""More than the kernel keeps for both ends of a connection."""


class Streams:
    """Counts the streams that are open."""

    open = 0

    async def endless(self) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            while True:
                yield b"x" * 10_000
                await asyncio.sleep(0)
        finally:
            self.open -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server: its port, and the tasks of its connections."""

    port: int
    tasks: set[asyncio.Task[None]]


@contextmanager
def serving(app: FastAPI) -> Iterator[Running]:
    """A server of `app`."""
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=impatient(LIMIT_S), log_config=None, timeout_graceful_shutdown=1)
    server = Server(config, lambda: None)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Running(port=bound.getsockname()[1], tasks=server.server_state.tasks)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def port(streams: Streams) -> Iterator[int]:
    app = FastAPI()

    @app.get("/large")
    async def large() -> Response:
        return Response(b"x" * LARGE)

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        return StreamingResponse(streams.endless())

    @app.websocket("/socket")
    async def spoken(websocket: WebSocket) -> None:
        await websocket.accept()
        with suppress(Exception):
            async for part in streams.endless():
                await websocket.send_bytes(part)

    with serving(app) as found:
        yield found.port


def ask(port: int, path: str, *headers: str) -> socket.socket:
    """A connection on which something was asked for, with little room for what comes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode())
    return client


def read_slowly(client: socket.socket, limit_s: float) -> bool:
    """Read a byte now and then; True once the other side has let go."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if is_let_go(client):
            return True
        client.recv(1)
        time.sleep(0.1)
    return False


def is_let_go(client: socket.socket) -> bool:
    """Whether the other side has reset the connection. What has come already could still be read."""
    return bool(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


UPGRADE: Final = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


@pytest.mark.parametrize(("path", "headers"), [("/large", ()), ("/endless", ()), ("/socket", UPGRADE)])
def test_who_takes_a_byte_now_and_then_is_let_go(
    port: int, streams: Streams, path: str, headers: tuple[str, ...]
) -> None:
    with ask(port, path, *headers) as client:
        began = time.monotonic()
        assert read_slowly(client, 8 * LIMIT_S)
        assert time.monotonic() - began >= LIMIT_S
    deadline = time.monotonic() + 2
    while streams.open:
        assert time.monotonic() < deadline, "the stream goes on"
        time.sleep(0.01)


def test_who_takes_nothing_is_let_go(port: int) -> None:
    with ask(port, "/large") as client:
        deadline = time.monotonic() + 8 * LIMIT_S
        while not is_let_go(client):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_who_reads_slowly_but_steadily_gets_everything(port: int) -> None:
    """For longer than the limit, and never fast enough for the buffers to be empty."""
    with ask(port, "/large", "Connection: close") as client:
        began, got = time.monotonic(), 0
        while part := client.recv(32_768):
            got += len(part)
            if time.monotonic() - began < 2.5 * LIMIT_S:
                time.sleep(0.02)
        assert time.monotonic() - began > 2.5 * LIMIT_S
        assert got > LARGE


def test_who_asks_for_nothing_is_left_alone(port: int) -> None:
    with ask(port, "/docs") as client:
        time.sleep(3 * LIMIT_S)
        assert not is_let_go(client)


@pytest.mark.parametrize(("path", "headers"), [("events", ()), ("ws", UPGRADE)])
def test_who_stops_following_a_job_is_forgotten_at_once(tmp_path: Path, path: str, headers: tuple[str, ...]) -> None:
    """Of a job of which nothing new is told."""
    settings = Settings(data_dir=tmp_path, history=False)
    with serving(create_app(settings, FakeEngine(held=True), Options(settings.options_file))) as running:
        asked = httpx.post(
            f"http://127.0.0.1:{running.port}/sdapi/v1/txt2img",
            json={"prompt": "a cat", "width": 64, "height": 64},
            headers={"Prefer": "respond-async"},
        )
        with ask(running.port, f"/jobs/{asked.json()['id']}/{path}", *headers) as client:
            assert b" 200 " in client.recv(4096)[:20] or headers
            time.sleep(0.5)
            assert len(running.tasks) == 1
        deadline = time.monotonic() + 2
        while running.tasks:
            assert time.monotonic() < deadline, "somebody is still told"
            time.sleep(0.01)
        httpx.delete(f"http://127.0.0.1:{running.port}/jobs/{asked.json()['id']}")
