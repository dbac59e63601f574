"""Several keys at one server: whoever brings five hundred jobs keeps nobody waiting who brings one.

`DARKROOM_FLOOD=100` brings fewer.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import Json, Server, darkroom, serving

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
BOOK_S = 0.25
"""What it takes to look into the book while five hundred jobs come and go."""

FLOOD = int(os.environ.get("DARKROOM_FLOOD", "500"))


@dataclass(frozen=True, slots=True)
class Shared:
    server: Server
    keys: dict[str, str]

    def headers(self, key: str, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[key]}", **more}

    def promise(self, key: str, seed: int, **more: str) -> str:
        answer = self.server.client.post(TXT2IMG, json=request(seed), headers=self.headers(key, **LATER, **more))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, key: str, job_id: str) -> Json:
        found: Json = self.server.client.get(f"/jobs/{job_id}", headers=self.headers(key)).json()
        return found

    def waiting(self) -> float:
        """How many promised jobs wait."""
        numbers = self.server.client.get("/metrics", headers=self.headers("admin")).text
        found = re.search(r'^darkroom_promised_jobs{state="queued"} (\S+)', numbers, re.MULTILINE)
        assert found, numbers
        return float(found[1])

    def end_of(self, key: str, job_id: str, limit_s: float = 120) -> Json:
        deadline = time.monotonic() + limit_s
        while (found := self.job(key, job_id))["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        assert found["state"] == "done", found
        return found


def request(seed: int) -> Json:
    return {"prompt": "a red apple", "seed": seed, "steps": 20, "width": 128, "height": 128, "cfg_scale": 1}


def make_key(folder: Path, name: str, *flags: str) -> str:
    made: subprocess.CompletedProcess[str] = darkroom(
        "key", "add", name, "--api-auth-file", str(folder / "credentials"), *flags, cwd=folder
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    keys = {name: make_key(tmp_path, name) for name in ("flood", "ben")}
    keys["admin"] = make_key(tmp_path, "admin", "--scope", "admin", "--scope", "read")
    with serving(tmp_path, "--api-auth-file", "credentials", "--threads", "1", "--no-ui") as server:
        yield Shared(server, keys)


@pytest.mark.slow
def test_one_key_s_flood_delays_another_key_s_job_by_no_more_than_two_jobs_time(shared: Shared) -> None:
    shared.end_of("ben", shared.promise("ben", 0))  # everything is warm
    alone = shared.end_of("ben", shared.promise("ben", 1))
    job_s = alone["ended_at"] - alone["started_at"]
    for seed in range(FLOOD):
        shared.promise("flood", seed)
    single = shared.end_of("ben", shared.promise("ben", 2))
    assert single["started_at"] - single["submitted_at"] <= 2 * job_s + BOOK_S, (job_s, single)
    waited_for = time.monotonic()
    answer = shared.server.client.post(TXT2IMG, json=request(3), headers=shared.headers("ben"))
    took_s = time.monotonic() - waited_for
    assert answer.status_code == 200
    print(
        f"alone {job_s:.3f} s; in the flood {single['ended_at'] - single['submitted_at']:.3f} s, waiting {took_s:.3f} s"
    )
    # Its own time, two jobs of others, and what a dozen jobs at once take of the processors beside the networks.
    assert single["ended_at"] - single["submitted_at"] <= 6 * job_s + BOOK_S
    assert shared.waiting() > FLOOD / 2, "the flood was over before the other's job came"
    entries = shared.server.client.get("/audit?owner=ben", headers=shared.headers("admin")).json()["entries"]
    assert [entry["seed"] for entry in entries] == [3, 2, 1, 0]
    listed = darkroom(
        "audit", "--owner", "ben", "--json", "--url", shared.server.url, "--key", shared.keys["admin"],
        cwd=shared.server.log.parent,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == len(entries)
    shared.server.process.kill()  # nobody waits for the rest of the flood


def test_a_browser_logs_in_and_follows_a_job(tmp_path: Path) -> None:
    with serving(tmp_path, "--gradio-auth", "me:secret", "--no-ui", auth=("me", "secret")) as server:
        browser = httpx.Client(base_url=server.url, timeout=60, headers={"Accept": "text/html"})
        led = browser.get("/jobs")
        assert led.status_code == 303
        page = browser.get(led.headers["location"])
        assert "Password" in page.text
        form = {"username": "me", "password": "secret", "next": "/jobs"}
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        assert browser.post("/login", data=form, headers=own).headers["location"] == "/jobs"
        promised = browser.post(TXT2IMG, json=request(1), headers={**own, **LATER})
        assert promised.status_code == 202
        with browser.stream("GET", f"/jobs/{promised.json()['id']}/events") as stream:
            assert "event: done" in list(stream.iter_lines())
        assert browser.post(TXT2IMG, json=request(1)).status_code == 403
        browser.post("/logout", headers=own)
        assert browser.get("/jobs").status_code == 303
        browser.close()
