"""The client, in both forms, against the real application over HTTP; only the engine is a fake."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from darkroom.api.jobs.documents import ImageDocument, JobDocument, WebhookDocument
from darkroom.client import AsyncClient, Client, Image, Job, Refused
from darkroom.client.conversation import ROUTES, Reader
from darkroom.client.models import Webhook
from tests.unit.client.conftest import Running

FIELDS: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}


def test_a_job_is_submitted_followed_and_fetched(running: Running) -> None:
    with Client(running.url) as client:
        job = client.submit("txt2img", **FIELDS, batch_size=2)
        assert (job.state, job.asynchronous) == ("queued", True)
        names = [happening.event for happening in client.events(job.id)]
        assert names[-1] == "done"
        done = client.wait(job)
        assert [image.place for image in done.images] == [0, 1]
        assert client.file(done.images[0]).startswith(b"\x89PNG")
        assert client.file(done.images[0], small=True)[8:12] == b"WEBP"
        assert len(client.result(job.id)["images"]) == 2
        assert [one.id for one in client.jobs(state="done").items] == [job.id]
        assert [one.job_id for one in client.images(text="cat", limit=1).items] == [job.id]
        assert client.cancel(job.id, forget=True).id == job.id
        with pytest.raises(Refused) as refused:
            client.job(job.id)
        assert (refused.value.status, refused.value.code) == (404, "unknown_name")


def test_it_can_be_awaited_too(running: Running) -> None:
    async def talk() -> None:
        async with AsyncClient(running.url) as client:
            job = await client.submit("generate", **FIELDS)
            assert [happening.event async for happening in client.events(job.id)][-1] == "done"
            done = await client.wait(job.id)
            assert (await client.file(done.images[0])).startswith(b"\x89PNG")
            running.engine.held = True
            dropped = await client.submit("txt2img", **FIELDS)
            await client.cancel(dropped.id)
            assert (await client.wait(dropped)).state == "cancelled"
            with pytest.raises(Refused, match="422"):
                await client.submit("txt2img", steps=-1)

    asyncio.run(talk())


def test_a_retry_with_the_same_key_is_the_same_job(running: Running) -> None:
    with Client(running.url) as client:
        first, again = (client.submit(**FIELDS, idempotency_key="k") for _ in range(2))
    assert first.id == again.id


def test_an_unknown_kind_is_not_sent(running: Running) -> None:
    with Client(running.url) as client, pytest.raises(ValueError, match="txt2img, img2img"):
        client.submit("txt3img")


class Breaking(httpx.BaseTransport):
    """A network that breaks a stream after its first event, twice."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, stream=_Stream(len(self.seen)))


class _Stream(httpx.SyncByteStream):
    def __init__(self, time_: int) -> None:
        self._time = time_

    def __iter__(self) -> Iterator[bytes]:
        name = "done" if self._time == 3 else "progress"
        yield f': hello\n\nid: 1.1.{self._time}\nevent: {name}\ndata: {{"n": {self._time}}}\n\n'.encode()
        if self._time < 3:
            raise httpx.ReadError("broken")


def test_a_stream_that_breaks_is_taken_up_where_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.client.conversation.RETRY_S", 0.0)
    network = Breaking()
    with Client("http://x", transport=network) as client:
        assert [happening.data["n"] for happening in client.events("j")] == [1, 2, 3]
    assert network.seen == [None, "1.1.1", "1.1.2"]


class Restarting(httpx.BaseTransport):
    """A server that stops in the middle of a stream, and takes its time to come back; then it refuses."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.asked == 1:
            return httpx.Response(200, content=b'id: 1.1.1\nevent: progress\ndata: {"n": 1}\n\n')  # ends in order
        if self.asked == 2:
            return httpx.Response(503, json={"code": "stopping", "detail": "the server stops"})
        if self.asked < 3 + self.refusals:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=b'id: 1.2.1\nevent: done\ndata: {"n": 2}\n\n')


def test_a_stream_outlives_a_restart_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.client.conversation.RETRY_S", 0.0)
    with Client("http://x", transport=Restarting(refusals=20)) as client:
        assert [happening.data["n"] for happening in client.events("j")] == [1, 2]
    with Client("http://x", transport=Restarting(refusals=200)) as client, pytest.raises(httpx.ConnectError):
        list(client.events("j"))


def test_a_server_that_was_never_there_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.client.conversation.RETRY_S", 0.0)
    nobody = httpx.MockTransport(lambda _: httpx.Response(502))
    with Client("http://x", transport=nobody) as client, pytest.raises(Refused, match="502"):
        list(client.events("j"))


def test_a_picture_is_tagged_and_removed(running: Running) -> None:
    with Client(running.url) as client:
        job = client.wait(client.submit("txt2img", **FIELDS))
        tagged = client.tag(job.images[0], "good", "red")
        assert tagged.tags == ("good", "red")
        assert client.images(tag="good").items == (tagged,)
        client.remove(tagged)
        assert client.images(tag="good").items == ()
        assert client.rerun(job.id).kind == "txt2img"


def test_events_are_put_together_from_lines() -> None:
    reader = Reader()
    lines = [": still here", "", "id: 1", "event: progress", 'data: {"progress": 0.5}', "", "", "data: {}", ""]
    found = [happening for line in lines for happening in reader.read(line)]
    assert [(one.id, one.event, one.data) for one in found] == [("1", "progress", {"progress": 0.5})]


@pytest.mark.parametrize(("ours", "theirs"), [(Job, JobDocument), (Image, ImageDocument), (Webhook, WebhookDocument)])
def test_the_client_knows_what_the_server_tells(ours: Any, theirs: Any) -> None:
    assert set(ours.model_fields) == set(theirs.model_fields) - {"links"}


def test_the_client_knows_the_server_s_routes(running: Running) -> None:
    paths = httpx.get(f"{running.url}/openapi.json").json()["paths"]
    assert [path for path in ROUTES.values() if "post" not in paths.get(path, {})] == []
