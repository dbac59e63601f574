"""What was promised is done, whatever happens to the server: killed at any moment, stopped in the middle, run again.

`DARKROOM_CHAOS=200,10` promises 200 jobs and kills the server ten times.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from tests.e2e.serving import Json, Server, free_port, serving

JOBS, KILLS = map(int, os.environ.get("DARKROOM_CHAOS", "12,2").split(","))
LATER = {"Prefer": "respond-async"}
TXT2IMG = "/sdapi/v1/txt2img"
FLAGS = ("--exact", "--threads", "1", "--no-ui")
LIFE_S = 4.0
"""A server that is ready lives no longer."""


def request(number: int) -> Json:
    return {
        "prompt": "a red apple", "seed": number, "subseed": 0, "steps": 4, "width": 128, "height": 128,
        "sampler_name": ("Euler a", "DPM++ 2M SDE", "UniPC")[number % 3], "batch_size": 1 + number % 2,
    }  # fmt: skip


def promise(server: Server, number: int) -> str:
    answer = server.client.post(TXT2IMG, json=request(number), headers={**LATER, "Idempotency-Key": f"n{number}"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def open_jobs(server: Server) -> int:
    jobs = server.get("/jobs?state=queued&state=running&limit=500")["jobs"]
    return len(jobs)


def wait_until_done(server: Server, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while open_jobs(server):
        assert time.monotonic() < deadline, f"{open_jobs(server)} jobs are not done after {limit_s} s"
        time.sleep(0.2)


def results(server: Server, ids: Mapping[int, str]) -> dict[int, list[str]]:
    found = {}
    for number, job_id in ids.items():
        job = server.get(f"/jobs/{job_id}")
        assert job["state"] == "done", job
        found[number] = [image["sha256"] for image in job["images"]]
        assert len(found[number]) == request(number)["batch_size"]
    return found


def start_and_kill(folder: Path, after_s: float) -> None:
    """A server that is not even ready when it is killed."""
    command = [sys.executable, "-m", "darkroom", "serve", "--port", str(free_port()), "--data-dir", str(folder), *FLAGS]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(after_s)
        process.kill()


def live(folder: Path, wanted: Sequence[int], ids: dict[int, str], life_s: float) -> None:
    """A server that is killed some time after it is ready: while it takes jobs in, draws them or writes them down."""
    with serving(folder, *FLAGS) as server:
        killer = threading.Timer(life_s, server.process.kill)
        killer.start()
        with suppress(httpx.TransportError):
            for number in wanted:
                ids[number] = promise(server, number)
        server.process.wait()
        killer.join()


def test_a_server_that_is_killed_again_and_again_keeps_every_promise(tmp_path: Path) -> None:
    chance = random.Random(7)
    ids: dict[int, str] = {}
    for kill in range(KILLS):
        if kill % 5 == 1:
            start_and_kill(tmp_path, chance.uniform(0.5, 4.0))
        else:
            waiting = [number for number in range(JOBS * (kill + 1) // KILLS) if number not in ids]
            live(tmp_path, waiting, ids, chance.uniform(0, LIFE_S))
    with serving(tmp_path, *FLAGS) as server:
        for number in range(JOBS):  # a retry is the same job: nothing is done twice
            known = ids.setdefault(number, promise(server, number))
            assert promise(server, number) == known
        wait_until_done(server, 30 + 3 * JOBS)
        drawn = results(server, ids)
        jobs = server.get("/jobs?limit=500")["jobs"]
        assert len(jobs) == JOBS
        assert len(server.get("/images?limit=500")["images"]) == sum(map(len, drawn.values()))
        files = list((tmp_path / "pictures").rglob("*.png"))
        assert len(files) == sum(map(len, drawn.values()))
    again = sum(job["attempts"] > 1 for job in jobs)
    print(f"{JOBS} jobs, {KILLS} kills: {len(drawn)} done, {again} of them begun more than once, {len(files)} pictures")
    other = tmp_path / "undisturbed"
    other.mkdir()
    with serving(other, *FLAGS) as server:
        undisturbed = {number: promise(server, number) for number in range(JOBS)}
        wait_until_done(server, 30 + 3 * JOBS)
        assert results(server, undisturbed) == drawn
