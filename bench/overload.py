"""`python -m bench.overload`: what becomes of a server that is asked for ten times what it can do.

Requests come at a steady rate, whatever becomes of them: half of their clients wait, half do not, some go away; others
ask for long answers and read a byte a second. Prints how they were answered and how long that took, the server's
memory, and how soon after the last of them a single request is as quick as before.
"""

import argparse
import asyncio
import json
import math
import random
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from tests.e2e.serving import Server, serving

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
PATIENCE_S = 600
NORMAL = 1.5
"""A latency up to so many times the one before is normal."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What clients were told, and in how many seconds, by status; status 0 is a client that went away."""

    times: dict[int, list[float]] = field(default_factory=dict)
    without_hint: int = 0
    let_go: int = 0
    promised: list[str] = field(default_factory=list)
    asking: list[asyncio.Task[None]] = field(default_factory=list)

    def note(self, status: int, seconds: float) -> None:
        """One more answer."""
        self.times.setdefault(status, []).append(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="how long there is too much")
    parser.add_argument("--times", type=int, default=10, help="how many times the server's capacity")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--backlog-s", type=float, default=2, help="most work in each queue, and in hand, in seconds")
    parser.add_argument("--threads", type=int, default=0, help="the server's setting")
    parser.add_argument("--slow-reader-s", type=float, default=5, help="the server's setting")
    parser.add_argument("--slow", type=int, default=10, help="clients that read a byte a second")
    wanted = parser.parse_args()
    flags = ["--no-ui", f"--threads={wanted.threads}", f"--slow-reader-s={wanted.slow_reader_s}"]
    body = {"prompt": "puppy dog", "steps": wanted.steps, "width": wanted.size, "height": wanted.size}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), *flags) as server:
        rate = asyncio.run(capacity(server, body))
    # An operator who wants quick answers lets queues be no longer than what is done in so many seconds, and has no more
    # in work: all three are done before the next request has the device to itself.
    most = max(2, round(rate * wanted.backlog_s))
    flags += [f"--max-queue={most}", f"--max-jobs={most}", f"--max-lanes={most}"]
    print(f"at most {rate:.1f} pictures/s; {most} may wait in each queue, {most} be in work", flush=True)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), *flags) as server:
        asyncio.run(measure(server, body, rate * wanted.times, wanted.seconds, wanted.slow))


async def measure(server: Server, body: dict[str, Any], rate: float, seconds: float, slow: int) -> None:
    """A quiet time, the crowd, and the time after it."""
    # httpx looks through all its connections for every request: it could not keep up.
    anybody = aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(limit=0))
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client, anybody as people:
        before_s = sorted([await one(client, body) for _ in range(6)])[2]
        print(f"alone {before_s:.2f} s a picture; {memory_mb(server):.0f} MB", flush=True)
        found = Found()
        idle = [asyncio.create_task(dawdle(server, seconds, found)) for _ in range(slow)]
        most = await crowd(server, people, body, rate, seconds, found)
        over = time.perf_counter()
        taken = await until_normal(client, body, before_s, over)
        normal_s = time.perf_counter() - over
        await asyncio.gather(*found.asking, *idle)
        tell(found)
        print(f"429 without Retry-After: {found.without_hint}; slow readers let go: {found.let_go} times")
        print(f"memory at most {most:.0f} MB; {normal_s:.1f} s after the last of them a picture took {taken:.2f} s")
        await afterwards(client, found.promised, over)
    print(f"memory in the end {memory_mb(server):.0f} MB")


def tell(found: Found) -> None:
    """How clients were answered."""
    for status, taken in sorted(found.times.items()):
        name = {0: "went away", 200: "done", 202: "promised", 429: "come again"}.get(status, "")
        row = "  ".join(f"p{share} {percentile(taken, share):6.2f} s" for share in (50, 95, 100))
        print(f"{status:4} {name:11} {len(taken):6} times  {row}")


async def capacity(server: Server, body: dict[str, Any]) -> float:
    """Pictures per second where 32 clients wait."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        await one(client, body)
        began = time.perf_counter()
        await asyncio.gather(*(one(client, body) for _ in range(32)))
        return 32 / (time.perf_counter() - began)


async def crowd(
    server: Server, client: aiohttp.ClientSession, body: dict[str, Any], rate: float, seconds: float, found: Found
) -> float:
    """Requests at a steady rate, whatever becomes of them; the most megabytes that the server had."""
    chance = random.Random(3)
    most, began = 0.0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        while len(found.asking) < elapsed * rate:
            found.asking.append(asyncio.create_task(ask(client, body, chance.random(), found)))
        most = max(most, memory_mb(server))
        await asyncio.sleep(0.1)
    print(f"{len(found.asking)} requests in {seconds:.0f} s", flush=True)
    return most


async def dawdle(server: Server, seconds: float, found: Found) -> None:
    """A client that asks for something long and reads a byte a second, and again whenever it is let go."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, (server.client.base_url.host, server.client.base_url.port))
            # More than the kernel keeps for both ends.
            await loop.sock_sendall(connection, 30 * b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while time.perf_counter() < until:
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found.let_go += 1
                    break
                await loop.sock_recv(connection, 1)
                await asyncio.sleep(1)


async def ask(client: aiohttp.ClientSession, body: dict[str, Any], lot: float, found: Found) -> None:
    """One request: of ten, five do not wait, four wait, and one goes away after a second."""
    began = time.perf_counter()
    headers, patience_s = (LATER if lot < 0.5 else {}), (1.0 if lot > 0.9 else PATIENCE_S)
    try:
        patience = aiohttp.ClientTimeout(total=patience_s)
        async with client.post(TXT2IMG, json=body, headers=headers, timeout=patience) as answer:
            text = await answer.read()
    except TimeoutError:
        found.note(0, time.perf_counter() - began)
        return
    found.note(answer.status, time.perf_counter() - began)
    found.without_hint += answer.status == httpx.codes.TOO_MANY_REQUESTS and "Retry-After" not in answer.headers
    if answer.status == httpx.codes.ACCEPTED:
        found.promised.append(json.loads(text)["id"])


async def until_normal(client: httpx.AsyncClient, body: dict[str, Any], before_s: float, over: float) -> float:
    """Ask for one picture after another until one takes as long as before; how long that was."""
    while True:
        began = time.perf_counter()
        answer = await client.post(TXT2IMG, json=body)
        taken = time.perf_counter() - began
        if (answer.status_code == httpx.codes.OK and taken <= NORMAL * before_s) or began - over > PATIENCE_S:
            return taken
        await asyncio.sleep(0.1)


async def afterwards(client: httpx.AsyncClient, promised: Sequence[str], over: float) -> None:
    """How soon what was promised is done."""
    while (await client.get("/jobs", params={"state": ["queued", "running"], "limit": 1})).json()["jobs"]:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    done_s = time.perf_counter() - over
    states = Counter([(await client.get(f"/jobs/{job_id}")).json()["state"] for job_id in promised])
    print(f"promised jobs after {done_s:.1f} s: {dict(states)}")


async def one(client: httpx.AsyncClient, body: dict[str, Any]) -> float:
    """Seconds for a picture."""
    began = time.perf_counter()
    (await client.post(TXT2IMG, json=body)).raise_for_status()
    return time.perf_counter() - began


def memory_mb(server: Server) -> float:
    """The server's resident memory, from Linux' `/proc`."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that so many per cent do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]


if __name__ == "__main__":
    main()
