"""`python -m bench.soak`: whether the server's memory stays where it is when it works for long.

Several clients ask for all kinds of work without a pause: pictures of many sizes from texts and from pictures, larger
ones of finished pictures, work that is promised and followed, lists; and some go away in the middle. The largest of
each kind and every size come first, from all of them at once. Prints the server's resident memory by the minute. The
last line compares the last minute's with an early one's; the program fails where that grew by more than two per cent.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from PIL import Image

from bench.overload import memory_mb
from tests.e2e.serving import Server, as_base64, serving

MOST_GROWTH = 0.02
LOOK_S = 1.0
PATIENCE_S = 300
SIZES = (64, 128, 192)
SAMPLERS = ("Euler a", "DPM++ 2M", "UniPC", "Heun", "DPM++ 2M SDE")
PROMPTS = ("a red apple", "a sailing boat", "a green house AND a blue sky")
LATER = {"Prefer": "respond-async"}
LISTS = (
    "/sdapi/v1/progress", "/sdapi/v1/options", "/sdapi/v1/sd-models", "/sdapi/v1/samplers", "/sdapi/v1/loras", "/jobs",
    "/images", "/images?text=apple&limit=500", "/jobs?state=done&limit=500", "/metrics", "/openapi.json", "/health",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Soaked:
    """What was asked, and what was seen: statuses by kind of work, megabytes by the second."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)

    def minute(self, number: int) -> float:
        """The median of a minute's megabytes; minutes count from 1."""
        return median(self.memory[60 * (number - 1) : 60 * number])


Work = Callable[[httpx.AsyncClient, random.Random], Awaitable[int]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--early", type=int, default=5, help="the minute that the last one is compared with")
    parser.add_argument("--clients", type=int, default=4, help="clients at once")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of a client")
    parser.add_argument("--threads", type=int, default=0, help="the server's setting")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "--threads", str(wanted.threads)) as server:
        found = asyncio.run(soak(server, wanted.clients, wanted.minutes, wanted.pause))
    for (kind, status), count in sorted(found.answers.items()):
        print(f"{kind:12} {status or '(left)':>9} {count:7} times")
    early, late = found.minute(wanted.early), found.minute(wanted.minutes)
    growth = late / early - 1
    print(f"minute {wanted.early}: {early:.0f} MB; minute {wanted.minutes}: {late:.0f} MB: {100 * growth:+.2f} %")
    sys.exit(growth > MOST_GROWTH)


async def soak(server: Server, clients: int, minutes: int, pause_s: float) -> Soaked:
    """Have the clients ask until the time is over."""
    found = Soaked()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=limits) as client:
        # The most that there can be at once comes first, and every size: what grows later is not a first time.
        await warm_up(client, clients)
        until = time.monotonic() + 60 * minutes
        tasks = [asyncio.create_task(ask(client, found, random.Random(n), until, pause_s)) for n in range(clients)]
        await watch(server, found, minutes)
        await asyncio.gather(*tasks)
    return found


class Most(random.Random):
    """No chance at all: always the last and the largest."""

    def choice(self, seq: Any) -> Any:
        """The last."""
        return seq[-1]

    def randint(self, a: int, b: int) -> int:
        """The largest."""
        return max(a, b)


async def warm_up(client: httpx.AsyncClient, clients: int) -> None:
    """All clients ask for the same at the same time: the largest work of each kind, then pictures of every size, few
    and many. torch makes kernels for each size and each number of pictures that it has not seen.
    """
    for kind in (txt2img, hires, img2img, extras):
        await asyncio.gather(*(kind(client, Most(n)) for n in range(clients)))
    for width, height, prompt, pictures, askers in product(
        SIZES, SIZES, PROMPTS[-2:], (1, 2, 3), range(1, clients + 1)
    ):
        sized = {"width": width, "height": height, "batch_size": pictures, "prompt": prompt, "steps": 2}
        bodies = [wishes(Most(n)) | sized for n in range(askers)]
        await asyncio.gather(*(post(client, "/sdapi/v1/txt2img", body) for body in bodies))


async def watch(server: Server, found: Soaked, minutes: int) -> None:
    """Look at the server's memory every second, and tell of it every minute."""
    began = time.monotonic()
    for second in range(1, 60 * minutes + 1):
        await asyncio.sleep(max(0.0, began + second * LOOK_S - time.monotonic()))
        found.memory.append(memory_mb(server))
        if second % 60 == 0:
            total = sum(found.answers.values())
            print(f"minute {second // 60:3}: {found.minute(second // 60):7.1f} MB, {total} requests", flush=True)


async def ask(client: httpx.AsyncClient, found: Soaked, chance: random.Random, until: float, pause_s: float) -> None:
    """One client: a request of some kind after another."""
    kinds = list(WORK)
    while time.monotonic() < until:
        kind = chance.choice(kinds)
        found.answers[kind, await WORK[kind](client, chance)] += 1
        await asyncio.sleep(pause_s)


def wishes(chance: random.Random) -> dict[str, Any]:
    """The fields of a request that makes pictures."""
    return {
        "prompt": chance.choice(PROMPTS),
        "seed": chance.randrange(2**31),
        "steps": chance.randint(2, 6),
        "width": chance.choice(SIZES),
        "height": chance.choice(SIZES),
        "batch_size": chance.randint(1, 3),
        "sampler_name": chance.choice(SAMPLERS),
    }


def photo(chance: random.Random) -> str:
    """Some picture in base64."""
    side = chance.choice(SIZES)
    slopes = [Image.linear_gradient("L").resize((side, side)).rotate(90 * chance.randrange(4)) for _ in range(3)]
    return as_base64(Image.merge("RGB", slopes))


async def post(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> int:
    """The status of an answer that is waited for."""
    return (await client.post(path, json=body)).status_code


async def txt2img(client: httpx.AsyncClient, chance: random.Random) -> int:
    """Pictures from a text."""
    return await post(client, "/sdapi/v1/txt2img", wishes(chance))


async def hires(client: httpx.AsyncClient, chance: random.Random) -> int:
    """Pictures in two passes."""
    body = {**wishes(chance), "width": 96, "height": 96, "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent"}
    return await post(client, "/sdapi/v1/txt2img", {**body, "denoising_strength": 0.6})


async def img2img(client: httpx.AsyncClient, chance: random.Random) -> int:
    """Pictures from pictures."""
    body = {**wishes(chance), "init_images": [photo(chance)], "denoising_strength": chance.uniform(0.2, 0.9)}
    return await post(client, "/sdapi/v1/img2img", body)


async def extras(client: httpx.AsyncClient, chance: random.Random) -> int:
    """A larger picture of a finished one."""
    upscaler = chance.choice(("Lanczos", "Darkroom 2x"))
    body = {"image": photo(chance), "upscaler_1": upscaler, "upscaling_resize": chance.choice((1.5, 2))}
    return await post(client, "/sdapi/v1/extra-single-image", body)


async def promised(client: httpx.AsyncClient, chance: random.Random) -> int:
    """Work that is asked for now, followed, and fetched later."""
    answer = await client.post("/sdapi/v1/txt2img", json=wishes(chance), headers=LATER)
    if answer.status_code != httpx.codes.ACCEPTED:
        return answer.status_code
    path = answer.headers["Location"]
    async with client.stream("GET", f"{path}/events?previews=true") as events:
        async for _ in events.aiter_lines():
            pass
    await client.get((await client.get(path)).json()["images"][0]["thumbnail"])
    return (await client.get(f"{path}/result")).status_code


async def lists(client: httpx.AsyncClient, chance: random.Random) -> int:
    """What costs no work."""
    return (await client.get(chance.choice(LISTS))).status_code


async def leaving(client: httpx.AsyncClient, chance: random.Random) -> int:
    """A client that goes away in the middle."""
    try:
        answer = await client.post("/sdapi/v1/txt2img", json=wishes(chance), timeout=chance.uniform(0.01, 0.5))
    except httpx.TimeoutException:
        return 0
    return answer.status_code


async def wrong(client: httpx.AsyncClient, chance: random.Random) -> int:
    """What is refused."""
    field_name, value = chance.choice((("width", 7), ("sampler_name", "none"), ("steps", -1), ("prompt", 5)))
    return await post(client, "/sdapi/v1/txt2img", {**wishes(chance), field_name: value})


WORK: Mapping[str, Work] = {
    "txt2img": txt2img, "hires": hires, "img2img": img2img, "extras": extras, "promised": promised, "lists": lists,
    "leaving": leaving, "wrong": wrong,
}  # fmt: skip

if __name__ == "__main__":
    main()
