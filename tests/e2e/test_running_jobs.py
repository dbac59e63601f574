"""What can be seen of and done to a job while it runs."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.e2e.serving import Json, Server, picture

LONG = {"prompt": "a sailing boat", "steps": 120, "width": 128, "height": 128, "seed": 5}


@contextmanager
def posting(server: Server, body: Json) -> Iterator[Future[Json]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(server.post, "/sdapi/v1/txt2img", body)


def test_progress_is_zero_when_idle(server: Server) -> None:
    progress = server.progress()
    assert list(progress) == ["progress", "eta_relative", "state", "current_image", "textinfo"]
    assert progress["progress"] == 0
    assert progress["state"]["job_count"] == 0
    assert progress["state"]["job"] == ""


def test_progress_rises_while_a_job_runs_and_shows_a_preview(server: Server) -> None:
    server.post("/sdapi/v1/options", {"show_progress_every_n_steps": 1})
    with posting(server, LONG | {"steps": 60}) as job:
        early = server.wait_until_sampling()
        assert early["state"]["job"] != ""
        assert early["state"]["sampling_steps"] == 60
        seen = []
        previews = []
        while not job.done():
            now = server.get("/sdapi/v1/progress")
            if now["state"]["job_count"]:
                seen.append(now["progress"])
                previews += [now["current_image"]] if now["current_image"] else []
        assert len(job.result()["images"]) == 1
    server.post("/sdapi/v1/options", {"show_progress_every_n_steps": 10})
    assert seen == sorted(seen)
    assert 0 < seen[0] <= seen[-1] <= 1
    assert previews, "no preview while the job ran"
    assert picture(previews[-1]).width > 0
    server.wait_until_idle()


def test_interrupt_returns_the_picture_so_far(server: Server) -> None:
    with posting(server, LONG) as job:
        server.wait_until_sampling()
        assert server.client.post("/sdapi/v1/interrupt").json() == {}
        answer = job.result(30)
    assert picture(answer["images"][0]).size == (128, 128)


def test_skip_ends_one_batch_and_the_next_goes_on(server: Server) -> None:
    with posting(server, LONG | {"n_iter": 2, "steps": 40}) as job:
        server.wait_until_sampling()
        assert server.client.post("/sdapi/v1/skip").json() is None
        answer = job.result(60)
    assert len(answer["images"]) == 2


def test_interrupt_while_idle_does_nothing_to_the_next_job(server: Server) -> None:
    server.client.post("/sdapi/v1/interrupt")
    answer = server.post("/sdapi/v1/txt2img", LONG | {"steps": 3, "n_iter": 2})
    assert len(answer["images"]) == 2


def test_a_dropped_connection_cancels_its_job(server: Server) -> None:
    patience = httpx.Timeout(30, read=1.5)
    with httpx.Client(base_url=server.url, timeout=patience) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post("/sdapi/v1/txt2img", json=LONG | {"n_iter": 10, "batch_size": 4})
    server.wait_until_idle(limit_s=10)


def test_an_interrupt_stops_only_what_runs_and_others_get_their_pictures(server: Server) -> None:
    with posting(server, LONG) as job:
        server.wait_until_sampling()
        server.client.post("/sdapi/v1/interrupt")
        job.result(30)
    answer = server.post("/sdapi/v1/txt2img", LONG | {"steps": 3})
    assert len(answer["images"]) == 1
