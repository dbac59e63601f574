"""The real application over HTTP, with a fake engine."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from pydantic import SecretStr

from darkroom.api.app import create_app
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    engine: FakeEngine


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with serving(Settings(data_dir=tmp_path, history=False)) as served:
        yield served


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Running]:
    """A server that asks who one is."""
    with serving(Settings(data_dir=tmp_path, history=False, api_auth=SecretStr("me:secret"), admins="me")) as served:
        yield served


@contextmanager
def serving(settings: Settings) -> Iterator[Running]:
    engine = FakeEngine()
    app = create_app(settings, engine, Options())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Running(f"http://127.0.0.1:{listening.getsockname()[1]}", engine)
        server.should_exit = True
        thread.join()
