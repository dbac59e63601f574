"""`python -m bench.overload`: what becomes of a server that is asked for ten times what it can do.

Requests come at a steady rate, whatever becomes of them: half of their clients wait, half do not, some go away. Prints
how they were answered and how long that took, the server's memory, and how soon a single request is as quick as before.
"""

import argparse
import asyncio
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    promised: list[str] = field(default_factory=list)

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
    parser.add_argument("--max-queue", type=int, default=32, help="the server's setting")
    parser.add_argument("--max-jobs", type=int, default=64, help="the server's setting")
    parser.add_argument("--threads", type=int, default=0, help="the server's setting")
    wanted = parser.parse_args()
    flags = [f"--{name}={getattr(wanted, name.replace('-', '_'))}" for name in ("max-queue", "max-jobs", "threads")]
    body = {"prompt": "puppy dog", "steps": wanted.steps, "width": wanted.size, "height": wanted.size}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), *flags) as server:
        asyncio.run(measure(server, body, wanted.seconds, wanted.times))


async def measure(server: Server, body: dict[str, Any], seconds: float, times: int) -> None:
    """A quiet time, the crowd, and the time after it."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=limits) as client:
        before_s = sorted([await one(client, body) for _ in range(6)])[2]
        at_rest = memory_mb(server)
        rate = await capacity(client, body)
        print(f"alone {before_s:.2f} s a picture; at most {rate:.1f} pictures/s; {at_rest:.0f} MB")
        found = Found()
        most = await crowd(server, client, body, rate * times, seconds, found)
        for status, taken in sorted(found.times.items()):
            name = {0: "went away", 200: "done", 202: "promised", 429: "come again"}.get(status, "")
            row = "  ".join(f"p{share} {percentile(taken, share):6.2f} s" for share in (50, 95, 100))
            print(f"{status:4} {name:11} {len(taken):6} times  {row}")
        print(f"429 without Retry-After: {found.without_hint}; memory at most {most:.0f} MB")
        await afterwards(client, body, before_s, found.promised)
    print(f"memory in the end {memory_mb(server):.0f} MB")


async def capacity(client: httpx.AsyncClient, body: dict[str, Any]) -> float:
    """Pictures per second where 16 clients wait."""
    began = time.perf_counter()
    await asyncio.gather(*(one(client, body) for _ in range(16)))
    return 16 / (time.perf_counter() - began)


async def crowd(
    server: Server, client: httpx.AsyncClient, body: dict[str, Any], rate: float, seconds: float, found: Found
) -> float:
    """Requests at a steady rate, whatever becomes of them; the most megabytes that the server had."""
    chance = random.Random(3)
    tasks: list[asyncio.Task[None]] = []
    most, began = 0.0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        while len(tasks) < elapsed * rate:
            tasks.append(asyncio.create_task(ask(client, body, chance.random(), found)))
        most = max(most, memory_mb(server))
        await asyncio.sleep(0.1)
    print(f"{len(tasks)} requests in {seconds:.0f} s")
    await asyncio.gather(*tasks)
    return max(most, memory_mb(server))


async def ask(client: httpx.AsyncClient, body: dict[str, Any], lot: float, found: Found) -> None:
    """One request: of ten, five do not wait, four wait, and one goes away after a second."""
    began = time.perf_counter()
    headers, patience_s = (LATER if lot < 0.5 else {}), (1.0 if lot > 0.9 else PATIENCE_S)
    try:
        answer = await client.post(TXT2IMG, json=body, headers=headers, timeout=patience_s)
    except httpx.ReadTimeout:
        found.note(0, time.perf_counter() - began)
        return
    found.note(answer.status_code, time.perf_counter() - began)
    found.without_hint += answer.status_code == httpx.codes.TOO_MANY_REQUESTS and "Retry-After" not in answer.headers
    if answer.status_code == httpx.codes.ACCEPTED:
        found.promised.append(answer.json()["id"])


async def afterwards(client: httpx.AsyncClient, body: dict[str, Any], before_s: float, promised: Sequence[str]) -> None:
    """How soon what was promised is done, and a single picture takes as long as before."""
    began = time.perf_counter()
    while (await client.get("/jobs", params={"state": ["queued", "running"], "limit": 1})).json()["jobs"]:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    states = Counter([(await client.get(f"/jobs/{job_id}")).json()["state"] for job_id in promised])
    done_s = time.perf_counter() - began
    while (taken := await one(client, body)) > NORMAL * before_s:
        if time.perf_counter() - began - done_s > PATIENCE_S:
            break
    normal_s = time.perf_counter() - began - done_s
    print(f"promised jobs after {done_s:.1f} s: {dict(states)}; {normal_s:.1f} s later a picture took {taken:.2f} s")


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
