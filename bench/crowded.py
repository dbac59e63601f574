"""`python -m bench.crowded`: whether quick answers stay quick while many clients wait for pictures.

Prints how long /sdapi/v1/progress, /health and the lists took meanwhile, and what a full queue answers.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.e2e.serving import Server, serving

QUICK = (
    "/health", "/sdapi/v1/progress", "/sdapi/v1/progress?skip_current_image=true", "/sdapi/v1/samplers",
    "/sdapi/v1/sd-models", "/sdapi/v1/upscalers", "/sdapi/v1/loras", "/sdapi/v1/options",
)  # fmt: skip
GOAL_S = 0.1
PAUSE_S = 0.02
PATIENCE_S = 900


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowded", description=__doc__)
    parser.add_argument("--clients", type=int, default=200, help="requests at once")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--max-queue", type=int, default=256, help="the server's setting")
    parser.add_argument("--threads", type=int, default=0, help="the server's setting")
    wanted = parser.parse_args()
    flags = ("--max-queue", str(wanted.max_queue), "--threads", str(wanted.threads))
    body = {"prompt": "puppy dog", "steps": wanted.steps, "width": wanted.size, "height": wanted.size}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), *flags) as server:
        asyncio.run(measure(server, wanted.clients, body))


async def measure(server: Server, clients: int, body: dict[str, object]) -> None:
    """Ask for all pictures at once, and time the quick routes until the last has come."""
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=limits) as crowd,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as visitor,
    ):
        await visitor.get("/health")
        began = time.perf_counter()
        waiting = [asyncio.create_task(crowd.post("/sdapi/v1/txt2img", json=body)) for _ in range(clients)]
        found = await visit(visitor, waiting)
        answers = [task.result() for task in waiting]
    statuses = Counter(answer.status_code for answer in answers)
    hints = {
        answer.headers.get("Retry-After") for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    }
    print(f"{clients} requests in {time.perf_counter() - began:.1f} s: {dict(statuses)}, Retry-After {hints or 'none'}")
    for path, times in found.items():
        verdict = "" if percentile(times, 95) < GOAL_S else f"  above {1000 * GOAL_S:.0f}"
        row = "  ".join(f"p{share} {1000 * percentile(times, share):6.1f} ms" for share in (50, 95, 100))
        print(f"{path:45} {len(times):5} times  {row}{verdict}")


async def visit(visitor: httpx.AsyncClient, waiting: Sequence[asyncio.Task[httpx.Response]]) -> dict[str, list[float]]:
    """Seconds of every quick answer while somebody waits for a picture."""
    found: dict[str, list[float]] = {path: [] for path in QUICK}
    while not all(task.done() for task in waiting):
        for path, times in found.items():
            began = time.perf_counter()
            (await visitor.get(path)).raise_for_status()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    return found


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that so many per cent do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]


if __name__ == "__main__":
    main()
