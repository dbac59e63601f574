"""Starts the real server as a process of its own, and knows when it is ready, idle and gone."""

import base64
import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

START_LIMIT_S = 90.0
"""Generous: a busy machine loads torch slowly. What a start really takes is measured in bench/."""

Json = dict[str, Any]
Pixels = NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running `darkroom serve` and a client of it."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client = field(repr=False)

    def post(self, path: str, body: object) -> Json:
        """The JSON answer of a request that must succeed."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
        found: Json = answer.json()
        return found

    def get(self, path: str) -> Any:
        """The JSON answer of a route that must succeed."""
        answer = self.client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def progress(self) -> Json:
        """`/progress` without its picture."""
        found: Json = self.get("/sdapi/v1/progress?skip_current_image=true")
        return found

    def wait_until_idle(self, limit_s: float = 30.0) -> None:
        """Until no job runs."""
        deadline = time.monotonic() + limit_s
        while self.progress()["state"]["job_count"] != 0:
            assert time.monotonic() < deadline, f"not idle after {limit_s} s"
            time.sleep(0.05)

    def wait_until_sampling(self, limit_s: float = 30.0) -> Json:
        """Until a job has made a step; gives the progress then."""
        deadline = time.monotonic() + limit_s
        while True:
            progress = self.progress()
            if progress["state"]["sampling_step"] > 0 and progress["progress"] > 0:
                return progress
            assert time.monotonic() < deadline, f"no step after {limit_s} s: {progress}"
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(
    folder: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    trusted: Path | None = None,
) -> Iterator[Server]:
    """A server whose files all lie in `folder`; stopped on leaving, which must go cleanly.

    Where `trusted` names a certificate, the server speaks HTTPS with it.
    """
    port = free_port()
    log = folder / f"server-{port}.log"
    command = [sys.executable, "-m", "darkroom", "serve", "--port", str(port), "--data-dir", str(folder), *flags]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DARKROOM_") or k == "DARKROOM_THREADS"}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=folder, env=kept | dict(env or {}), stdout=sink, stderr=subprocess.STDOUT
        )
    url = f"{'https' if trusted else 'http'}://127.0.0.1:{port}"
    verify = ssl.create_default_context(cafile=trusted)
    try:
        with httpx.Client(base_url=url, timeout=120, auth=auth, verify=verify) as client:
            wait_until_ready(client, process, log)
            yield Server(url=url, log=log, process=process, client=client)
    finally:
        stop(process)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        assert process.poll() is None, f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"not ready after {START_LIMIT_S} s:\n{log.read_text()[-3000:]}"
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def darkroom(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line tool to its end, with `env` added to the environment."""
    command = [sys.executable, "-m", "darkroom", *arguments]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


def picture(data: str | bytes) -> Image.Image:
    """A picture from base64 (with or without data URI) or from bytes."""
    raw = base64.b64decode(data.split(",", 1)[-1]) if isinstance(data, str) else data
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


def pixels(data: str | bytes | Image.Image) -> Pixels:
    """`[H, W, 3]`, signed so that differences do not wrap."""
    image = data if isinstance(data, Image.Image) else picture(data)
    return np.asarray(image.convert("RGB")).astype(np.int16)


def as_base64(image: Image.Image) -> str:
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return base64.b64encode(sink.getvalue()).decode()


def apart(a: Pixels, b: Pixels) -> float:
    """Mean difference in 8-bit levels."""
    assert a.shape == b.shape
    return float(np.abs(a - b).mean())


def first_pictures(answers: Sequence[Json]) -> list[Pixels]:
    return [pixels(answer["images"][0]) for answer in answers]
