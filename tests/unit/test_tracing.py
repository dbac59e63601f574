"""Spans, as they are made: what hangs under what, and how long each lasts."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from darkroom import tracing
from darkroom.engine.client import JobStatus
from darkroom.engine.job import Job
from darkroom.engine.loop import Loop
from darkroom.history.ledger import Record
from darkroom.tracing import Tracer
from tests.unit.engine.fake_runner import FakeRunner, finish, make_spec

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
RECORD = Record(
    id="j", kind="txt2img", owner="", state="running", durable=True, submitted_at=time.time() - 5, attempts=2
)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    made = Tracer(exporter)
    yield made
    made.close()


def spans(tracer: Tracer, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    tracer._provider.force_flush()
    return list(exporter.get_finished_spans())


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan, among: Sequence[ReadableSpan]) -> str | None:
    found = {one.context.span_id: one.name for one in among if one.context}
    return found.get(span.parent.span_id) if span.parent else None


def test_jobs_that_share_batches_each_have_their_own_spans(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    loop = Loop(FakeRunner(), max_lanes=8, max_rows=16, exact=False, watcher=tracer)
    jobs = [Job(f"e{seed}", make_spec(seeds=[seed], steps=20), ended_with=tracer.ended) for seed in range(3)]
    for job in jobs:
        with tracer.job(replace(RECORD, id=job.job_id), ""):
            tracer.submitted(job.job_id)
        loop.add(job)
    finish(loop, *jobs)
    found = spans(tracer, exporter)
    denoising = [span for span in found if span.name == "Denoise"]
    assert sum(int(str(facts(span)["darkroom.evaluations"])) for span in denoising) == 3 * 20 * 2
    rows = [int(str((event.attributes or {})["rows"])) for span in denoising for event in span.events]
    assert max(rows) > 2, "no batch was shared"
    drawings = [span for span in found if span.name == "drawing"]
    assert len(drawings) == 3
    for span in drawings:
        assert (parent_of(span, found), facts(span)["darkroom.state"]) == ("job txt2img", "done")
    assert {parent_of(span, found) for span in denoising} == {"drawing"}


def test_a_job_s_span_begins_when_it_was_promised_and_tells_how_it_ended(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.job(RECORD, PARENT):
        assert tracer.carried().startswith(f"00-{TRACE}-")
        tracer.note("state", "failed")
    waiting, job = spans(tracer, exporter)
    assert job.parent is not None
    assert (f"{job.parent.trace_id:032x}", f"{job.parent.span_id:016x}") == (TRACE, "b7ad6b7169203331")
    assert job.start_time == int(RECORD.submitted_at * 1e9)
    assert facts(job) == {"darkroom.job_id": "j", "darkroom.attempt": 2, "darkroom.state": "failed"}
    assert not job.status.is_ok
    assert parent_of(waiting, [job]) == "job txt2img"
    assert tracer.carried() == ""


def test_what_a_client_does_not_want_followed_is_not(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    with tracer.job(RECORD, PARENT[:-1] + "0"):
        tracer.submitted("e")
    tracer.worked("Denoise", {"e": 2}, 0.1)
    now = time.time()
    tracer.ended(JobStatus(job_id="e", spec=make_spec(), state="done", submitted_at=now, started_at=now, ended_at=now))
    assert spans(tracer, exporter) == []


def test_no_more_than_so_many_batches_are_remembered(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    with tracer.job(RECORD, ""):
        tracer.submitted("e")
    for number in range(3000):
        tracer.worked(("Denoise", "Decode")[number // 200 % 2], {"e": 1}, 0.0)
    now = time.time()
    tracer.ended(JobStatus(job_id="e", spec=make_spec(), state="done", submitted_at=now, started_at=now, ended_at=now))
    phases = [span for span in spans(tracer, exporter) if span.name in ("Denoise", "Decode")]
    assert [len(span.events) for span in phases] == [tracing.MOST_EVENTS] * 15
    assert [facts(span)["darkroom.batches"] for span in phases] == [200] * 15


class Deaf(SpanExporter):
    """A collector that never answers."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.told.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.told.set()


def test_a_collector_that_never_answers_keeps_nobody_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "CLOSE_S", 0.2)
    tracer = Tracer(Deaf())
    with tracer.job(RECORD, ""):
        pass
    began = time.monotonic()
    tracer.close()
    assert time.monotonic() - began < 5
