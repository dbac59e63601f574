"""What goes wrong around a running server: each time a clear error or a clean recovery, and nothing lost that was
promised.
"""

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from darkroom.nets.catalog import embedded
from tests.e2e.serving import Json, Server, pixels, serving

TXT2IMG = "/sdapi/v1/txt2img"
LATER = {"Prefer": "respond-async"}
SMALL: Json = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 5}
FLAGS = ("--threads", "1", "--no-ui")
DISK_BYTES = 16_000_000


def promise(server: Server, body: Json) -> httpx.Response:
    return server.client.post(TXT2IMG, json=body, headers=LATER)


def wait_until_done(server: Server, job_id: str, limit_s: float = 60) -> Json:
    deadline = time.monotonic() + limit_s
    while (job := server.get(f"/jobs/{job_id}"))["ended_at"] is None:
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    found: Json = job
    return found


def mount(*arguments: object) -> None:
    """Mount something. Who may not, has to do without the test."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """A disk without a byte of room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk_costs_nothing_that_was_promised(small_disk: Path) -> None:
    with serving(small_disk, *FLAGS) as server:
        known = wait_until_done(server, promise(server, SMALL).json()["id"])
        at_work = promise(server, SMALL | {"steps": 60, "width": 128, "height": 128, "n_iter": 2}).json()["id"]
        with full(small_disk):
            refused = promise(server, SMALL)
            assert (refused.status_code, refused.json()["code"]) == (503, "history_unavailable")
            assert "full" in refused.json()["detail"]
            saved = server.client.post(TXT2IMG, json=SMALL | {"save_images": True})
            assert (saved.status_code, saved.json()["code"]) == (503, "files_unavailable")
            assert "No space left on device" in saved.json()["detail"]
            linked = server.client.post(f"{TXT2IMG}?response=url", json=SMALL)
            assert linked.status_code == 503
            options = server.client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2})
            assert (options.status_code, options.json()["code"]) == (503, "options_not_kept")
            assert len(server.post(TXT2IMG, SMALL)["images"]) == 1  # who waits is served
            assert server.get(f"/jobs/{known['id']}")["state"] == "done"
            assert server.client.get("/health").status_code == 200
            deadline = time.monotonic() + 60
            while server.progress()["state"]["job_count"]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert server.get(f"/jobs/{at_work}")["state"] == "running"
        assert len(wait_until_done(server, at_work)["images"]) == 2  # it waited for room
        assert promise(server, SMALL).status_code == 202
    assert "Traceback" not in server.log.read_text()
    assert [path.name for path in small_disk.rglob("*") if ".part" in path.name or ".save-" in path.name] == []


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that may not be written to, by root neither."""
    folder.mkdir(parents=True)
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_an_output_folder_that_is_read_only_is_named(tmp_path: Path) -> None:
    saved = SMALL | {"save_images": True}
    with serving(tmp_path, *FLAGS) as server:
        with read_only(tmp_path / "outputs"):
            refused = server.client.post(TXT2IMG, json=saved)
            assert (refused.status_code, refused.json()["code"]) == (503, "files_unavailable")
            assert refused.json()["detail"] in (
                "txt2img-images: Read-only file system",
                "txt2img-images: Permission denied",
            )
            job = wait_until_done(server, promise(server, saved).json()["id"])
            assert (job["state"], job["error"]["code"]) == ("failed", "files_unavailable")
            assert len(server.post(TXT2IMG, SMALL)["images"]) == 1
        assert len(server.post(TXT2IMG, saved)["images"]) == 1
    assert len(list((tmp_path / "outputs").rglob("*.png"))) == 1
    assert "Traceback" not in server.log.read_text()


def test_who_holds_the_database_makes_promises_wait_and_nobody_else(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS) as server:
        wait_until_done(server, promise(server, SMALL).json()["id"])
        other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(server.url + TXT2IMG, json=SMALL, headers=LATER, timeout=60))
        )
        asking.start()
        assert len(server.post(TXT2IMG, SMALL)["images"]) == 1
        assert server.progress()["progress"] == 0
        assert answers == []
        other.execute("COMMIT")
        other.close()
        asking.join()
        assert wait_until_done(server, answers[0].json()["id"])["state"] == "done"


def test_a_row_that_is_damaged_costs_no_other(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS) as server:
        ids = [wait_until_done(server, promise(server, SMALL).json()["id"])["id"] for _ in range(3)]
        with sqlite3.connect(tmp_path / "history.db") as opened:
            opened.execute("UPDATE jobs SET model = CAST(x'ff' AS TEXT) WHERE id = ?", (ids[0],))
            opened.execute("UPDATE pictures SET width = 'wide' WHERE job_id = ?", (ids[1],))
        opened.close()
        assert [job["id"] for job in server.get("/jobs")["jobs"]] == [ids[2], ids[1]]
        assert [image["job_id"] for image in server.get("/images")["images"]] == [ids[2], ids[0]]
        damaged = server.client.get(f"/jobs/{ids[0]}")
        assert (damaged.status_code, damaged.json()["code"]) == (410, "damaged")
        assert ids[0] in damaged.json()["detail"]
        assert server.get(f"/jobs/{ids[1]}")["images"] == []
        assert wait_until_done(server, promise(server, SMALL).json()["id"])["state"] == "done"


def test_a_model_file_that_is_deleted_costs_no_other_model(tmp_path: Path) -> None:
    mini = embedded()
    if mini is None:
        pytest.skip("the package was built without its model")
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        shutil.copy(mini, folder / f"{name}.safetensors")
        shutil.copy(mini.with_suffix(".yaml"), folder / f"{name}.yaml")
    first, second = (SMALL | {"override_settings": {"sd_model_checkpoint": name}} for name in ("a", "b"))
    with serving(tmp_path, "--models-dir", str(tmp_path / "models"), *FLAGS) as server:

        def draws(body: Json) -> bool:
            return bool((pixels(server.post(TXT2IMG, body)["images"][0]) == drawn).all())

        drawn = pixels(server.post(TXT2IMG, first)["images"][0])
        assert draws(second)
        (folder / "b.safetensors").unlink()
        refused = server.client.post(TXT2IMG, json=second)
        assert (refused.status_code, refused.json()["code"]) == (500, "bad_model_file")
        assert "b.safetensors: cannot be read: No such file or directory" in refused.json()["detail"]
        job = wait_until_done(server, promise(server, second).json()["id"])
        assert (job["state"], job["error"]["code"]) == ("failed", "bad_model_file")
        assert draws(first)
        shutil.copy(mini, folder / "b.safetensors")  # put back, it is used again
        assert draws(second)
        with (folder / "a.safetensors").open("r+b") as file:
            file.truncate(1000)
        assert "a.safetensors: is a safetensors file that was cut off" in server.client.post(TXT2IMG, json=first).text
        assert draws(second)
    assert "Traceback" not in server.log.read_text()
