import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine

Serve = Callable[..., TestClient]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def serve(engine: FakeEngine, tmp_path: Path) -> Iterator[Serve]:
    """Starts a server with the given settings."""
    clients: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        chosen = Settings(**{"data_dir": tmp_path, "history": False, **settings})
        client = TestClient(create_app(chosen, engine, Options(chosen.options_file)), follow_redirects=False)
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


def to_base64(picture: Image.Image, file_format: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def from_base64(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def box_mask(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return mask
