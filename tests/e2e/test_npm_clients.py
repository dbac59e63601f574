"""Clients from npm work unchanged; they are installed into a cache folder, as npm/package-lock.json pins them."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.e2e.serving import Json, Server

NPM = Path(__file__).parent / "npm"
INSTALL_LIMIT_S = 120

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Where the clients are installed; skips with the reason where the registry cannot be reached."""
    lock = (NPM / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom-tests"
    ready = cache / f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not ready.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        install(Path(tempfile.mkdtemp(dir=cache)), ready)
    return ready / "node_modules"


def install(workplace: Path, ready: Path) -> None:
    """Beside its final place first, so that half an installation is never taken for a whole one."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NPM / name, workplace)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        shutil.rmtree(workplace)
        pytest.skip(f"npm could not install the clients: {error} {str(error.stderr)[-300:]}")
    workplace.rename(ready)


def drive(client: str, server: Server, node_modules: Path, photo: Image.Image) -> Json:
    """What the client saw."""
    sink = io.BytesIO()
    photo.save(sink, format="PNG")
    port = str(urlsplit(server.url).port)
    done = subprocess.run(
        ["node", str(NPM / "drive.js"), client, port],
        input=sink.getvalue(),
        env=dict(os.environ) | {"NODE_PATH": str(node_modules)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("client", ["stable-diffusion-api", "a1111-webui-api"])
def test_the_translations_of_the_api_work(client: str, server: Server, node_modules: Path, photo: Image.Image) -> None:
    seen = drive(client, server, node_modules, photo)
    assert seen["drawn"] == [[128, 128], [128, 128]]
    assert seen["seeds"] == [7, 8]
    assert seen["enlarged"] == [192, 192]
    assert seen["redrawn"] == seen["inpainted"] == [128, 128]
    assert seen["extra"] == [256, 256]
    assert seen["notes"] == "string"
    assert seen["model"] in seen["models"]
    assert seen["progress"] == 0
    assert seen["samplers"] > 10
    assert seen["upscalers"][0] == "None"
    assert seen["flags"] == "object"
    assert all(seen["lists"])
    assert seen["refusal"] == 422


def test_node_sd_webui_works(server: Server, node_modules: Path, photo: Image.Image) -> None:
    seen = drive("node-sd-webui", server, node_modules, photo)
    assert seen["drawn"] == [[128, 128], [128, 128]]
    assert seen["seeds"] == [7, 8]
    assert seen["enlarged"] == [192, 192]
    assert seen["scripted"] == 2
    assert seen["redrawn"] == [128, 128]
    assert (seen["prompt"], seen["steps"]) == ("a red apple", 3)
