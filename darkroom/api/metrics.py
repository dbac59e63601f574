"""`/metrics`: what the server does, in numbers, as Prometheus reads them.

Each application counts for itself. What the engine and the book of jobs know is asked when somebody looks.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom import __version__
from darkroom.api.addresses import route_of
from darkroom.api.context import Context
from darkroom.api.jobs.desk import Desk
from darkroom.engine import client as engine
from darkroom.engine.client import DeviceMemory, EngineStats
from darkroom.errors import DarkroomError
from darkroom.history.webhooks import CallState

router = APIRouter(tags=["health"])

PATH = "/metrics"

_FAMILIES: Mapping[str, str] = MappingProxyType(
    {"sdapi": "sdapi", "v1": "openai", "jobs": "jobs", "images": "images", "internal": "internal", "models": "models",
     "generate": "generate", "health": "health", "ready": "health", "metrics": "health"}
)  # fmt: skip
"""Families of routes by the first part of their paths. All else is one: anybody may ask for any path."""

_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)


_CODE: Final = re.compile(r"[a-z_]{1,64}")
_MOST_CODES: Final = 100
_LONGEST_REFUSAL: Final = 65_536


class Metrics:
    """One application's numbers."""

    def __init__(self, context: Context, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter("darkroom_http_responses", "Answers.", ["family", "status"], registry=self._registry)
        self._seconds = Histogram(
            "darkroom_http_seconds", "From a request's coming to the beginning of its answer.", ["family"],
            buckets=_HTTP_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._errors = Counter("darkroom_errors", "Refusals and failures.", ["family", "code"], registry=self._registry)
        self._codes: set[str] = set()
        self._calls = Counter(
            "darkroom_webhook_calls",
            "Calls by how they stand afterwards: delivered, waiting for the next try, given_up.",
            ["outcome"],
            registry=self._registry,
        )
        self._registry.register(_EngineNumbers(context))
        self._registry.register(_BookNumbers(desk))
        ProcessCollector(registry=self._registry)

    def count_answer(self, family: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._answers.labels(family, str(status)).inc()
        self._seconds.labels(family).observe(seconds)

    def count_error(self, family: str, code: str) -> None:
        """A request was refused, or failed. Codes are few; an extension's might not be."""
        if code in self._codes or len(self._codes) < _MOST_CODES:
            self._codes.add(code)
        else:
            code = "other"
        self._errors.labels(family, code).inc()

    def count_call(self, outcome: CallState) -> None:
        """A webhook was called."""
        self._calls.labels(outcome).inc()

    def text(self) -> bytes:
        """Everything. Reads the database; for a worker thread."""
        return generate_latest(self._registry)


class Meter:
    """ASGI middleware that counts answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        family = _FAMILIES.get(route_of(scope).strip("/").partition("/")[0], "other")

        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.count_answer(family, status, time.perf_counter() - began)
            elif status >= 400:
                self._metrics.count_error(family, _code(status, message.get("body", b"")))
                status = 0  # the rest of it says no more
            await send(message)

        await self._app(scope, receive, send_counted)


def _code(status: int, body: bytes) -> str:
    """The stable code of a refusal's body, wherever that has it; else its status."""
    try:
        told = json.loads(body) if len(body) < _LONGEST_REFUSAL else None
    except ValueError:
        told = None
    outer = told if isinstance(told, dict) else {}
    inner = outer.get("error")  # OpenAI's shape
    code = outer.get("code") or (inner.get("code") if isinstance(inner, dict) else None)
    return code if isinstance(code, str) and _CODE.fullmatch(code) else str(status)


class OpenMetrics:
    """ASGI middleware for in front of the layer that asks for credentials: answers one route to everybody."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] == "GET" and route_of(scope) == PATH:
            answer = Response(await to_thread.run_sync(self._metrics.text), media_type=CONTENT_TYPE_LATEST)
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)


@router.get(PATH, response_class=Response)
def metrics(request: Request) -> Response:
    """What the server does, in numbers, for Prometheus."""
    found = request.app.state.metrics
    assert isinstance(found, Metrics), "the application has metrics"
    return Response(found.text(), media_type=CONTENT_TYPE_LATEST)


class _EngineNumbers(Collector):
    """What the engine says."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterable[Metric]:
        """The engine's numbers of now."""
        hosted = self._context.engine
        info = InfoMetricFamily("darkroom", "The server.")
        info.add_metric([], {"version": __version__})
        yield info
        yield GaugeMetricFamily("darkroom_ready", "Whether the first checkpoint is loaded.", hosted.ready())
        jobs = GaugeMetricFamily("darkroom_engine_jobs", "Jobs in the engine.", labels=["state"])
        jobs.add_metric(["queued"], len(self._context.queued()))
        jobs.add_metric(["running"], len(self._context.running()))
        yield jobs
        yield from _counted(hosted.stats())
        memory = hosted.memory()
        if memory:
            yield from _remembered(memory)


class _BookNumbers(Collector):
    """What the book of jobs says."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterable[Metric]:
        """The promises of now. A server that never promised anything has none, and no database either."""
        counts = {"queued": 0, "running": 0}
        usable = True
        try:
            if self._desk.has_books:
                counts |= self._desk.books().ledger.count_promised()
        except DarkroomError:
            usable = False
        yield GaugeMetricFamily("darkroom_database_up", "Whether the book of jobs can be read.", usable)
        if usable:
            jobs = GaugeMetricFamily("darkroom_promised_jobs", "Asynchronous jobs that are not done.", labels=["state"])
            for state, count in counts.items():
                jobs.add_metric([state], count)
            yield jobs


def _counted(stats: EngineStats) -> Iterator[Metric]:
    rows = HistogramMetricFamily("darkroom_batch_rows", "Network inputs of a batch.", labels=["kind"])
    batches = CounterMetricFamily("darkroom_batches", "Forward passes.", labels=["kind"])
    evaluations = CounterMetricFamily("darkroom_evaluations", "Network inputs that were answered.", labels=["kind"])
    seconds = CounterMetricFamily("darkroom_batch_seconds", "Time of the device in forward passes.", labels=["kind"])
    for kind, histogram in stats.rows.items():
        _add(rows, kind, histogram)
        batches.add_metric([kind], sum(histogram.counts))
        evaluations.add_metric([kind], histogram.total)
        seconds.add_metric([kind], stats.seconds.get(kind, 0.0))
    waits = HistogramMetricFamily("darkroom_job_wait_seconds", "Jobs' time in the engine's queue.", labels=["model"])
    for model, histogram in stats.waits.items():
        _add(waits, model, histogram)
    services = HistogramMetricFamily("darkroom_job_service_seconds", "Jobs' time at work.", labels=["model"])
    for model, histogram in stats.services.items():
        _add(services, model, histogram)
    ended = CounterMetricFamily("darkroom_engine_jobs_ended", "Jobs by how they ended.", labels=["state"])
    for state in sorted(engine.FINAL):
        ended.add_metric([state], stats.ended.get(state, 0))
    yield from (rows, batches, evaluations, seconds, waits, services, ended)
    yield GaugeMetricFamily("darkroom_resident_model_bytes", "What the loaded models hold.", stats.resident_bytes)


def _remembered(memory: DeviceMemory) -> Iterator[Metric]:
    kinds = {
        "free": memory.free, "total": memory.total, "allocated": memory.allocated[0], "reserved": memory.reserved[0],
    }  # fmt: skip
    gauge = GaugeMetricFamily("darkroom_device_memory_bytes", "Memory of the device.", labels=["kind"])
    for kind, nbytes in kinds.items():
        gauge.add_metric([kind], nbytes)
    yield gauge
    yield CounterMetricFamily("darkroom_device_out_of_memory", "How often it was too little.", memory.out_of_memory)


def _add(family: HistogramMetricFamily, label: str, histogram: engine.Histogram) -> None:
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    family.add_metric([label], list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
