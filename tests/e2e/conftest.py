"""One server for the whole run, with the embedded model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.e2e.serving import Server, serving


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The shared server, with nothing left of the test before."""
    shared_server.wait_until_idle()
    return shared_server


@pytest.fixture
def photo() -> Image.Image:
    """128x128: a green disc on a blue-to-yellow slope."""
    image = Image.linear_gradient("L").resize((128, 128))
    slope = Image.merge("RGB", (image, image, Image.eval(image, lambda level: 255 - level)))
    ImageDraw.Draw(slope).ellipse((32, 32, 96, 96), fill=(20, 160, 60))
    return slope


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[2]
