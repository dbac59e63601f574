import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.api.running import printable
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.fake_engine import FakeEngine


async def wait_until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  another task makes it true
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", ["/sdapi/v1/txt2img", "/generate/"])
def test_a_dropped_connection_cancels_its_job_and_no_other(path: str, tmp_path: Path) -> None:
    engine = FakeEngine(held=True)
    app = create_app(Settings(data_dir=tmp_path), engine, Options())

    async def scenario() -> None:
        gone = asyncio.Event()
        body = [{"type": "http.request", "body": b"{}", "more_body": False}]

        async def receive() -> Any:
            if body:
                return body.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            return

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("test", 80),
            "client": ("test", 1),
            "root_path": "",
        }
        request = asyncio.ensure_future(app(scope, receive, send))
        await wait_until(lambda: engine.specs)
        other = engine.submit(engine.specs[0])
        gone.set()
        await asyncio.wait_for(request, 5)
        assert engine.status("job0").state == "cancelled"
        assert engine.status(other).state == "running"

    asyncio.run(scenario())


def test_a_job_that_was_dropped_from_the_queue_answers_without_pictures(tmp_path: Path) -> None:
    engine = FakeEngine(held=True)
    submit = engine.submit

    def submit_and_cancel(spec: Any, standing: Any = None) -> str:
        job_id = submit(spec, standing)
        engine.cancel(job_id)
        return job_id

    engine.submit = submit_and_cancel  # type: ignore[method-assign]
    with TestClient(create_app(Settings(data_dir=tmp_path), engine, Options())) as client:
        answer = client.post("/sdapi/v1/txt2img", json={})
    assert answer.status_code == 200
    assert answer.json()["images"] == []


@given(st.lists(st.text(), max_size=5))
def test_notes_are_a_value_that_a_header_may_have(notes: list[str]) -> None:
    value = printable(notes)
    assert value.isascii()
    assert value.isprintable()
    assert value == value.strip()
