"""Traces, as a collector sees them that speaks OTLP over HTTP: real requests, real protobuf."""

import gzip
import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.serving import Server, serving

SMALL = {"prompt": "a red apple", "steps": 3, "width": 64, "height": 64, "seed": 1, "batch_size": 2}
TXT2IMG = "/sdapi/v1/txt2img"
TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{ABOVE}-01"}
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "200"}


class Collector:
    """What has come, and where it may be sent."""

    def __init__(self) -> None:
        self.sent: list[ExportTraceServiceRequest] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""

    def take(self, headers: Mapping[str, str], body: bytes) -> None:
        data = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        self.headers.append(headers)
        self.sent.append(ExportTraceServiceRequest.FromString(data))

    @property
    def spans(self) -> list[Span]:
        scopes = [scope for one in self.sent for resource in one.resource_spans for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    @property
    def resource(self) -> dict[str, str]:
        found = self.sent[0].resource_spans[0].resource.attributes
        return {one.key: one.value.string_value for one in found}

    def wait_for(self, *names: str) -> dict[str, Span]:
        """The spans of those names, once they are there."""
        deadline = time.monotonic() + 20
        while not {*names} <= {span.name for span in self.spans}:
            assert time.monotonic() < deadline, sorted(span.name for span in self.spans)
            time.sleep(0.05)
        return {span.name: span for span in self.spans}


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.take(dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def facts(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def is_below(span: Span, parent: Span) -> bool:
    """Whether a span is the other one's child, and no longer than it."""
    within = parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    return span.parent_span_id == parent.span_id and span.trace_id == parent.trace_id and within


def wait_until_done(server: Server, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while server.get(f"/jobs/{job_id}")["ended_at"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_request_is_followed_into_the_batches_that_draw_it(tmp_path: Path, collector: Collector) -> None:
    flags = ("--threads", "1", "--no-ui", "--otlp-endpoint", collector.url, "--log-format", "json")
    with serving(tmp_path, *flags, env=QUICK) as server:
        answer = server.client.post(TXT2IMG, json=SMALL, headers=PARENT)
        assert answer.status_code == 200
        found = collector.wait_for(f"POST {TXT2IMG}", "drawing", "Denoise", "Decode")
    request, drawing = found[f"POST {TXT2IMG}"], found["drawing"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, ABOVE)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert facts(request)["http.response.status_code"] == 200
    assert facts(request)["darkroom.job_id"] == answer.headers["X-Job-Id"]
    assert is_below(drawing, request)
    assert facts(drawing)["darkroom.state"] == "done"
    phases = sorted(
        (span for span in collector.spans if is_below(span, drawing)), key=lambda span: span.start_time_unix_nano
    )
    # The two pictures need not be drawn side by side: one may be decoded while the other has a step to go.
    assert list(dict.fromkeys(span.name for span in phases)) == ["queued", "EncodeText", "Denoise", "Decode"]
    steps = [span for span in phases if span.name == "Denoise"]
    assert sum(facts(span)["darkroom.evaluations"] for span in steps) == 3 * 2 * 2
    assert all(len(span.events) == facts(span)["darkroom.batches"] for span in steps)
    assert collector.resource["service.name"] == "darkroom"
    assert not [span for span in collector.spans if "ready" in span.name or "health" in span.name]
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    [access] = [line for line in lines if line.get("path") == TXT2IMG]
    assert access["trace_id"] == TRACE


def test_a_promise_belongs_to_the_request_that_it_was_made_to(tmp_path: Path, collector: Collector) -> None:
    env = {**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "pictures",
           "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret"}  # fmt: skip
    with serving(tmp_path, "--threads", "1", "--no-ui", "--log-format", "json", env=env) as server:
        headers = {**PARENT, "Prefer": "respond-async"}
        job_id = server.client.post(TXT2IMG, json=SMALL, headers=headers).json()["id"]
        wrong = {**SMALL, "alwayson_scripts": {}, "override_settings": {"samples_save": True}, "save_images": True}
        (tmp_path / "outputs").write_text("in the way")
        failing = server.client.post(TXT2IMG, json=wrong, headers=headers).json()["id"]
        for one in (job_id, failing):
            wait_until_done(server, one)
        collector.wait_for("job txt2img", "drawing")
        server.get(f"/jobs/{job_id}")
        collector.wait_for("GET /jobs/{id}")
    requests = [span for span in collector.spans if span.name == f"POST {TXT2IMG}"]
    jobs = {facts(span)["darkroom.job_id"]: span for span in collector.spans if span.name == "job txt2img"}
    job = jobs[job_id]
    [request] = [span for span in requests if span.span_id == job.parent_span_id]
    assert facts(request)["http.response.status_code"] == 202
    assert job.trace_id.hex() == TRACE
    below = [span for span in collector.spans if is_below(span, job)]
    assert sorted(span.name for span in below) == ["drawing", "waiting"]
    assert facts(job)["darkroom.state"] == "done"
    assert (facts(jobs[failing])["darkroom.state"], jobs[failing].status.code) == ("failed", 2)
    assert collector.resource["service.name"] == "pictures"
    assert {headers["x-key"] for headers in collector.headers} == {"secret"}
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    [done] = [line for line in lines if line["message"] == f"job {job_id}: done"]
    assert done["trace_id"] == TRACE


def test_a_collector_that_is_not_there_is_in_nobody_s_way(tmp_path: Path) -> None:
    with serving(tmp_path, "--threads", "1", "--no-ui", "--otlp-endpoint", "http://127.0.0.1:9", env=QUICK) as server:
        assert len(server.post(TXT2IMG, SMALL)["images"]) == 2
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert "Traceback" not in server.log.read_text()
