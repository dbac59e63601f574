"""The examples and the README's request do what they say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.serving import Server


def run(command: list[str], server: Server, folder: Path) -> None:
    environment = dict(os.environ) | {"DARKROOM_URL": server.url}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_writes_its_pictures(server: Server, repository: Path, tmp_path: Path) -> None:
    run(["bash", str(repository / "examples/curl.sh")], server, tmp_path)
    for name in ("generate.png", "txt2img.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width >= 64


def test_the_python_example_writes_its_pictures(server: Server, repository: Path, tmp_path: Path) -> None:
    run([sys.executable, str(repository / "examples/client.py")], server, tmp_path)
    for name in ("txt2img.png", "img2img.png", "inpaint.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width >= 64


def test_the_example_with_openais_client_writes_its_pictures(server: Server, repository: Path, tmp_path: Path) -> None:
    run([sys.executable, str(repository / "examples/openai_client.py")], server, tmp_path)
    for name in ("apple-0.png", "apple-1.png", "edited.webp"):
        with Image.open(tmp_path / name) as image:
            assert image.width >= 64


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_request_of_the_readme_gives_a_picture(server: Server, repository: Path, tmp_path: Path) -> None:
    readme = (repository / "README.md").read_text()
    blocks = [block for block in re.findall(r"```(?:bash|sh)\n(.*?)```", readme, re.DOTALL) if "curl" in block]
    assert blocks, "the README shows no curl request"
    script = blocks[0].replace("http://127.0.0.1:7860", server.url)
    run(["bash", "-euo", "pipefail", "-c", script], server, tmp_path)
    (written,) = tmp_path.glob("*.png")
    with Image.open(written) as image:
        assert image.width >= 64
