"""Lines of the log for programs: each is an object, and names the job that it is about."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.logs import JsonLines, about, job_in_hand
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine
from tests.unit.api.test_jobs import SMALL, TXT2IMG


class Lines(logging.Handler):
    """Keeps what is logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.told: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert "\n" not in line
        self.told.append(json.loads(line))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    for name in ("uvicorn", "uvicorn.access"):  # another test may have set them up for a server
        for attribute, value in (("propagate", True), ("disabled", False), ("level", logging.NOTSET)):
            monkeypatch.setattr(logging.getLogger(name), attribute, value)
    root, handler = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_line_is_an_object(lines: Lines) -> None:
    logging.getLogger("a.b").warning("%s costs\n%d €", "it", 3)
    [told] = lines.told
    assert (told["level"], told["logger"], told["message"]) == ("warning", "a.b", "it costs\n3 €")
    assert told["time"].endswith("Z")
    assert "job_id" not in told


def test_a_line_names_the_job_in_hand_also_in_tasks_that_are_begun_for_it(lines: Lines) -> None:
    log = logging.getLogger("a")

    async def later() -> None:
        log.info("later")

    async def work() -> None:
        with about("j1"):
            task = asyncio.ensure_future(later())
            log.info("now")
        log.info("after")
        await task

    asyncio.run(work())
    assert [(told["message"], told.get("job_id")) for told in lines.told] == [
        ("now", "j1"), ("after", None), ("later", "j1"),
    ]  # fmt: skip
    assert job_in_hand() == ""


def test_an_exception_is_told_with_its_traceback(lines: Lines) -> None:
    log = logging.getLogger("a")
    log.error("failed", exc_info=ValueError("no"), extra={"job_id": "j2", "engine_job_id": "e"})
    [told] = lines.told
    assert "ValueError: no" in told["error"]
    assert (told["job_id"], told["engine_job_id"]) == ("j2", "e")


def test_an_access_is_told_in_its_parts(lines: Lines) -> None:
    args = ("127.0.0.1:5", "GET", "/jobs/ab?x=1", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *args)
    [told] = lines.told
    assert (told["client"], told["method"], told["path"], told["status"]) == (args[0], "GET", "/jobs/ab?x=1", 200)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
def test_whoever_looks_on_sees_of_which_job_a_request_was(
    lines: Lines, headers: dict[str, str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    seen: list[str] = []
    submit = engine.submit

    def noted(spec: Any, standing: Any) -> str:
        seen.append(job_in_hand())
        return submit(spec, standing)

    monkeypatch.setattr(engine, "submit", noted)
    with TestClient(create_app(Settings(data_dir=tmp_path, history=False), engine, Options())) as client:
        job_id = client.post(TXT2IMG, json=SMALL, headers=headers).headers["X-Job-Id"]
        if headers:
            while not client.get(f"/jobs/{job_id}").json()["ended_at"]:
                pass
    assert seen == [job_id]
    ours = [told for told in lines.told if told["logger"].startswith("darkroom")]
    assert all(told["job_id"] == job_id for told in ours)
    assert bool(headers) == any(told["message"] == f"job {job_id}: done" for told in lines.told)
