"""What is measured, each in a process of its own: Darkroom's engine, its server, and what others use.

The one that is not measured stands idle. A worker is told its orders as a line of JSON and answers with one.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from darkroom.bench.orders import Order

START_LIMIT_S = 600.0


class NotHereError(RuntimeError):
    """This machine or this installation has not what a subject needs; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A checkpoint: what tables call it, its file, and what kind it is ("mini", "sd15", "sdxl")."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What all subjects of a run share: device, threads, and a folder for what they leave behind."""

    device: str
    threads: int
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a subject's process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        # Asleep, as Darkroom's threads wait: those of a subject that stands idle would else take the cores from the one
        # that is measured.
        return kept | threads | {"TRANSFORMERS_VERBOSITY": "error", "OMP_WAIT_POLICY": "passive"}


class Subject(Protocol):
    """Something that makes pictures."""

    def run(self, wanted: Sequence[Order], clients: int = 1) -> list[float]:
        """The seconds that each picture took from when it was asked for. So many clients ask, each for one picture
        after another; with 0 every picture is asked for at its own time.
        """

    def close(self) -> None:
        """End the process."""


class Worker:
    """A child process that makes pictures and leaves what it leaves in `folder`. `kind` is one of `worker.KINDS`."""

    def __init__(self, kind: str, model: Model, conditions: Conditions, **options: object) -> None:
        """Start it and wait until it is ready. Raises NotHereError."""
        self.folder = Path(tempfile.mkdtemp(prefix="worker-", dir=conditions.folder))
        told: dict[str, Any] = {
            "kind": kind,
            "name": model.name,
            "path": str(model.path),
            "folder": str(self.folder),
        }
        told |= {"device": conditions.device, "threads": conditions.threads, "options": options}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "darkroom.bench.worker", json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=conditions.environment,
        )
        self._hear()

    def run(self, wanted: Sequence[Order], clients: int = 1) -> list[float]:
        """See `Subject`."""
        found: list[float] = self.ask({"orders": [order.as_dict() for order in wanted], "clients": clients})["seconds"]
        return found

    def settle(self, wanted: Sequence[Order], clients: int = 1) -> None:
        """Have pictures made until networks are compiled for such orders."""
        self.ask({"orders": [order.as_dict() for order in wanted], "clients": clients, "settle": True})

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Tell the process something and wait for its answer. Raises NotHereError if it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NotHereError(f"it ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "missing" in found:
            self._process.wait()
            raise NotHereError(found["missing"])
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Served:
    """`darkroom serve`, asked over HTTP. `ready_s` and `first_s` are the seconds from its start until it was ready and
    until it had made a first picture.
    """

    def __init__(self, model: Model, conditions: Conditions, *flags: str) -> None:
        """Start it and wait until it is ready; `flags` are its own. Raises NotHereError."""
        self._port = _free_port()
        log = conditions.folder / f"server-{self._port}.log"
        command = [sys.executable, "-m", "darkroom", "serve", "--port", str(self._port)]
        command += ["--data-dir", str(conditions.folder / f"data-{self._port}"), "--device", conditions.device]
        command += ["--threads", str(conditions.threads), "--ckpt", str(model.path), *flags]
        self.began = time.perf_counter()
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, cwd=conditions.folder, env=conditions.environment, stdout=sink, stderr=subprocess.STDOUT
            )
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}", timeout=3600, limits=httpx.Limits(max_connections=None)
        )
        self._wait(log)
        self.ready_s = time.perf_counter() - self.began

    def _wait(self, log: Path) -> None:
        while True:
            if self._process.poll() is not None or time.perf_counter() - self.began > START_LIMIT_S:
                self.close()
                raise NotHereError(f"the server is not ready: {log.read_text()[-500:]}")
            try:
                if self._client.get("/ready").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def run(self, wanted: Sequence[Order], clients: int = 1) -> list[float]:
        """See `Subject`."""
        return run_all(self.draw, wanted, clients)

    def draw(self, order: Order, **fields: object) -> float:
        """Seconds that a picture takes, decoded from JSON."""
        begin = time.perf_counter()
        answer = self._client.post("/sdapi/v1/txt2img", json=order.as_request() | fields).raise_for_status().json()
        base64.b64decode(answer["images"][0])
        return time.perf_counter() - begin

    def titles(self) -> list[str]:
        """The titles of all checkpoints."""
        return [one["title"] for one in self._client.get("/sdapi/v1/sd-models").raise_for_status().json()]

    def close(self) -> None:
        """End the server as ^C does."""
        self._client.close()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_all(draw: Callable[[Order], object], wanted: Sequence[Order], clients: int) -> list[float]:
    """Have every picture drawn by threads, see `Subject.run`."""
    begin = time.perf_counter()

    def one(order: Order) -> float:
        time.sleep(max(0.0, begin + order.at_s - time.perf_counter()) if not clients else 0.0)
        asked = time.perf_counter() if clients else begin + order.at_s
        draw(order)
        return time.perf_counter() - asked

    with ThreadPoolExecutor(clients or len(wanted)) as pool:
        return list(pool.map(one, wanted))


@contextmanager
def running(*subjects: Subject) -> Iterator[None]:
    """Close them in the end."""
    try:
        yield
    finally:
        for subject in subjects:
            subject.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
