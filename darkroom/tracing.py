"""Spans for OpenTelemetry: of requests, of the jobs that they become, and of the batches in which these are drawn.

    POST /sdapi/v1/txt2img          the request
      job txt2img                   where it was promised: from then to its end, also after a restart
        waiting                     until a server took it from the book
        drawing                     the engine's part; a request with a script has several
          queued                    until the engine had room
          EncodeText, Denoise, ...  batches of one kind in a row, each batch an event with its rows

Imports OpenTelemetry, an optional dependency (darkroom[opentelemetry]): imported only where traces are wanted. What
the standard's variables (OTEL_...) say of sampling, resources, headers and limits is heeded by its SDK.
"""

import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom import __version__
from darkroom.api.addresses import route_of
from darkroom.engine.client import JobStatus
from darkroom.history.ledger import Record
from darkroom.jobs.spec import JobSpec
from darkroom.logs import traced

UNSEEN: Final = re.compile(r"/(health|ready|metrics)|/ui-assets/.*|/sdapi/v1/progress|/internal/progress")
"""Routes that are asked again and again, and of which nobody wants to know."""

CLOSE_S: Final = 2.0
"""How long a collector has, when the server stops, to take what is left."""

_ID: Final = re.compile(r"/[0-9a-f]{16,32}(?=/|$)")
MOST_EVENTS: Final = 128
_MOST_PHASES: Final = 256


class Tracer:
    """Makes spans and sends them. Thread-safe."""

    def __init__(self, exporter: SpanExporter) -> None:
        own = {"service.version": __version__}
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "darkroom"}
        self._provider = TracerProvider(resource=Resource.create({**own, **named}), shutdown_on_exit=False)
        self._exporter = exporter
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("darkroom", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._drawings: dict[str, _Drawing] = {}
        self._lock = Lock()

    def close(self) -> None:
        """Send what was not sent yet. A collector that does not answer is not waited for."""
        ending = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        if ending.is_alive():
            self._exporter.shutdown()
            ending.join(CLOSE_S)

    # What the application tells.

    def layer(self, app: ASGIApp) -> ASGIApp:
        """The application with a span around each request."""

        async def follow(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or UNSEEN.fullmatch(route_of(scope)):
                await app(scope, receive, send)
                return
            with self._request(scope) as span:
                await app(scope, receive, lambda message: _note_answer(span, message, send))

        return follow

    @contextmanager
    def _request(self, scope: Scope) -> Iterator[Span]:
        sent = Headers(scope=scope)
        above = self._propagator.extract({name: sent[name] for name in ("traceparent", "tracestate") if name in sent})
        path = route_of(scope)
        facts: dict[str, str] = {
            "http.request.method": scope["method"],
            "url.path": path,
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        name = f"{scope['method']} {_ID.sub('/{id}', path)}"
        with (
            self._tracer.start_as_current_span(name, above, SpanKind.SERVER, facts) as span,
            traced(_trace_id(span)),
        ):
            yield span

    def carried(self) -> str:
        """What goes on here, as a W3C `traceparent`; empty if nothing is followed."""
        carrier: MutableMapping[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent", "")

    @contextmanager
    def job(self, record: Record, traceparent: str) -> Iterator[None]:
        """A span around a promised job that is begun, below the request that asked for it."""
        above = self._propagator.extract({"traceparent": traceparent}, Context())
        facts: dict[str, str | int] = {"darkroom.job_id": record.id, "darkroom.attempt": record.attempts}
        began_ns = _nanoseconds(record.submitted_at)
        with (
            self._tracer.start_as_current_span(
                f"job {record.kind}", above, attributes=facts, start_time=began_ns
            ) as span,
            traced(_trace_id(span)),
        ):
            self._past("waiting", began_ns, time.time_ns())
            yield

    def note(self, name: str, value: str | int) -> None:
        """Something that is worth knowing of what goes on here."""
        span = trace.get_current_span()
        span.set_attribute(f"darkroom.{name}", value)
        if name == "state" and value == "failed":
            span.set_status(StatusCode.ERROR)

    # What the engine tells.

    def submitted(self, job_id: str) -> None:
        """A job of the engine belongs to whatever goes on here."""
        with self._lock:
            self._drawings[job_id] = _Drawing(above=context.get_current())

    def worked(self, kind: str, rows: Mapping[str, int], seconds: float) -> None:
        """A batch was answered."""
        ended_ns = time.time_ns()
        batch = _Batch(
            began_ns=ended_ns - int(seconds * 1e9), ended_ns=ended_ns, rows=sum(rows.values()), jobs=len(rows)
        )
        with self._lock:
            for job_id, own in rows.items():
                drawing = self._drawings.get(job_id)
                if drawing:
                    drawing.add(kind, batch, own)

    def ended(self, status: JobStatus) -> None:
        """A job of the engine has ended: its spans are made now, of what is known of it."""
        with self._lock:
            drawing = self._drawings.pop(status.job_id, None)
        if drawing is None or status.ended_at is None:
            return
        began_ns, ended_ns = _nanoseconds(status.submitted_at), _nanoseconds(status.ended_at)
        span = self._tracer.start_span("drawing", drawing.above, attributes=_facts(status), start_time=began_ns)
        if status.state == "failed":
            span.set_status(StatusCode.ERROR)
        below = trace.set_span_in_context(span, drawing.above)
        started_at = status.started_at or status.ended_at
        self._past("queued", began_ns, _nanoseconds(started_at), below)
        for phase in drawing.phases:
            self._draw_phase(phase, below)
        span.end(ended_ns)

    def _draw_phase(self, phase: "_Phase", above: Context) -> None:
        facts = {"darkroom.batches": phase.count, "darkroom.evaluations": phase.own, "darkroom.batch_rows": phase.rows}
        first, last = phase.began_ns, phase.batches[-1].ended_ns
        span = self._tracer.start_span(phase.kind, above, attributes=facts, start_time=first)
        for batch in phase.batches:
            told = {"rows": batch.rows, "jobs": batch.jobs, "seconds": (batch.ended_ns - batch.began_ns) / 1e9}
            span.add_event("batch", told, batch.ended_ns)
        span.end(last)

    def _past(self, name: str, began_ns: int, ended_ns: int, above: Context | None = None) -> None:
        """A span of something that is over."""
        self._tracer.start_span(name, above, start_time=began_ns).end(max(began_ns, ended_ns))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A forward pass: of so many network inputs, for so many jobs."""

    began_ns: int
    ended_ns: int
    rows: int
    jobs: int


@dataclass(slots=True, kw_only=True)
class _Phase:
    """Batches of one kind in a row, of which the last are remembered. `own` are the network inputs of one job, `rows`
    those of all in the same batches.
    """

    kind: str
    began_ns: int
    count: int = 0
    own: int = 0
    rows: int = 0
    batches: deque[_Batch] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))


@dataclass(slots=True, kw_only=True)
class _Drawing:
    """A job of the engine while it is at work; `above` is what it belongs to."""

    above: Context
    phases: deque[_Phase] = field(default_factory=lambda: deque(maxlen=_MOST_PHASES))

    def add(self, kind: str, batch: _Batch, own: int) -> None:
        """One more batch that the job had a share of."""
        if not self.phases or self.phases[-1].kind != kind:
            self.phases.append(_Phase(kind=kind, began_ns=batch.began_ns))
        phase = self.phases[-1]
        phase.count += 1
        phase.own += own
        phase.rows += batch.rows
        phase.batches.append(batch)


def open_tracer(endpoint: str) -> Tracer:
    """A tracer that sends to a collector's address, such as http://127.0.0.1:4318; without one to where the standard's
    variables say.
    """
    address = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    return Tracer(OTLPSpanExporter(endpoint=address))


async def _note_answer(span: Span, message: Message, send: Send) -> None:
    if message["type"] == "http.response.start":
        status: int = message["status"]
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        job_id = Headers(raw=message["headers"]).get("x-job-id")
        if job_id:
            span.set_attribute("darkroom.job_id", job_id)
    await send(message)


def _facts(status: JobStatus) -> dict[str, Any]:
    spec = status.spec
    facts: dict[str, Any] = {"darkroom.engine_job_id": status.job_id, "darkroom.state": status.state}
    if isinstance(spec, JobSpec):
        facts |= {
            "darkroom.model": spec.checkpoint,
            "darkroom.sampler": spec.sampler,
            "darkroom.steps": spec.steps,
            "darkroom.images": len(spec.seeds),
        }
    return facts


def _trace_id(span: Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)
