"""One browser and one server for all tests of the pages; a tab without a past for each."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.visit import Visit, keep_inside
from tests.e2e.serving import Server, serving

PATIENCE_MS = 30_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium as root, as in a container, has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def shared_server(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Server]:
    del browser  # where there is none, no server is started either
    with serving(tmp_path_factory.mktemp("server"), "--exact", "--threads", "1") as server:
        assert server.client.get("/ui/").status_code == 200  # the pages are built
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The shared server, with nothing left to do of the test before."""
    for state in ("queued", "running"):
        for job in shared_server.get(f"/jobs?state={state}&limit=100")["jobs"]:
            shared_server.client.delete(f"/jobs/{job['id']}")
    shared_server.wait_until_idle()
    return shared_server


@pytest.fixture
def visiting(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens tabs, each of a person of its own: `visiting(server)`. Troubles are told at the end of the test."""
    visits: list[Visit] = []

    def visit(server: Server, *, width: int = 1440, height: int = 900, beside: Visit | None = None) -> Visit:
        if beside is None:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                permissions=["clipboard-read", "clipboard-write"],
                reduced_motion="reduce",
            )
            context.set_default_timeout(PATIENCE_MS)
        else:
            context = beside.page.context
        made = Visit(context.new_page(), server.url)
        keep_inside(context, server.url, made.troubles)
        visits.append(made)
        return made

    yield visit
    for made in visits:
        made.page.context.close()
    for made in visits:
        made.check()


@pytest.fixture
def visit(visiting: Callable[..., Visit], server: Server) -> Visit:
    """A tab on the shared server."""
    return visiting(server)


@pytest.fixture(scope="package")
def photo() -> Image.Image:
    """128x128: a green disc on a blue-to-yellow slope."""
    image = Image.linear_gradient("L").resize((128, 128))
    slope = Image.merge("RGB", (image, image, Image.eval(image, lambda level: 255 - level)))
    ImageDraw.Draw(slope).ellipse((32, 32, 96, 96), fill=(20, 160, 60))
    return slope


@pytest.fixture
def sheet(request: pytest.FixtureRequest) -> str:
    """A short name of the test, for files."""
    return re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[2]
