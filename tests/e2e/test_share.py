"""`--share` with Gradio's own tunnel, of which the program alone is a stand-in."""

import os
import platform
import re
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import serving

PROGRAM = """#!/bin/sh
# What Gradio's tunnel starts: says that the port it is to forward is the link.
echo $$ > "{folder}/pid"
while [ "$1" != "-l" ]; do shift; done
echo "start proxy success: http://127.0.0.1:$2"
exec sleep 600
"""


@pytest.fixture
def tunnel(tmp_path: Path) -> dict[str, str]:
    """An environment in which the tunnel's program is there already, and its server needs not be asked for."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine().lower())
    program = tmp_path / f"hub/gradio/frpc/frpc_{platform.system().lower()}_{machine}_v0.3"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(folder=tmp_path))
    program.chmod(0o755)
    return {"HF_HOME": str(tmp_path / "hub"), "GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:9"}


def said(log: Path, pattern: str) -> re.Match[str]:
    """What the log says, once it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text())
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()


def test_a_public_link_asks_for_the_password_that_was_made(tmp_path: Path, tunnel: dict[str, str]) -> None:
    with serving(tmp_path, "--share", "--no-ui", env=tunnel) as server:
        user, password = said(server.log, r"Log in as (\S+) with the password (\S+),").groups()
        link = said(server.log, r"Public link: (http\S+)").group(1)
        assert httpx.get(f"{link}/sdapi/v1/options").status_code == 401
        assert httpx.get(f"{link}/sdapi/v1/options", auth=(user, password)).status_code == 200
        program = int((tmp_path / "pid").read_text())
        assert lives(program)
    assert not lives(program)


def test_a_public_link_asks_for_the_passwords_that_are_set(tmp_path: Path, tunnel: dict[str, str]) -> None:
    with serving(tmp_path, "--share", "--no-ui", "--gradio-auth", "me:secret", env=tunnel) as server:
        link = said(server.log, r"Public link: (http\S+)").group(1)
        assert httpx.get(f"{link}/sdapi/v1/options").status_code == 401
        assert httpx.get(f"{link}/sdapi/v1/options", auth=("me", "secret")).status_code == 200
        assert "password" not in server.log.read_text()


def test_without_the_tunnels_program_the_server_says_so_and_serves(tmp_path: Path, tunnel: dict[str, str]) -> None:
    apart = {"HF_HOME": str(tmp_path / "nothing"), "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": ""}
    with serving(tmp_path, "--share", "--no-ui", env=tunnel | apart, auth=("me", "x")) as server:
        said(server.log, r"Public link: none, because the tunnel's program cannot be downloaded")
        assert server.client.get("/ready").status_code == 200
