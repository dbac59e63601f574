"""The application: routes, layers and errors put together. Starts nothing and loads nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from darkroom import __version__, extensions
from darkroom.api import (
    answers,
    audit,
    cards,
    diagnosis,
    extras,
    flags,
    generation,
    health,
    installation,
    interrogate,
    lists,
    login,
    merging,
    metrics,
    networks,
    options,
    options_table,
    png_info,
    process,
    progress,
    prompt_tools,
    residency,
    scripts,
    shelf,
    simple,
    styles,
    tasks,
    training,
    whoami,
)
from darkroom.api.auth import Gate, Guard
from darkroom.api.body_limit import BodyLimit
from darkroom.api.boundary import Boundary
from darkroom.api.context import Context
from darkroom.api.jobs import events, images
from darkroom.api.jobs import routes as jobs
from darkroom.api.jobs.desk import Desk
from darkroom.api.jobs.dispatch import Dispatcher
from darkroom.api.jobs.intake import Intake
from darkroom.api.jobs.webhooks import Courier
from darkroom.api.limits import Limits
from darkroom.api.openai import errors as openai_errors
from darkroom.api.openai import routes as openai
from darkroom.api.origins import OriginCheck
from darkroom.api.traces import UNTRACED, Traces
from darkroom.engine.client import Engine
from darkroom.options.store import Options
from darkroom.settings import Settings

_ROUTES = (
    generation, extras, png_info, interrogate, progress, tasks, options, lists, networks, styles, scripts, installation,
    prompt_tools, flags, residency, training, cards, diagnosis, simple, health, login, openai,
    jobs, events, images, audit,
    merging, metrics, options_table, shelf, whoami,
)  # fmt: skip

_EXPOSED = ("X-Job-Id", "X-Seed", "X-Darkroom-Ignored", "X-Darkroom-Warnings", "X-Process-Time", "Retry-After")


def create_app(
    settings: Settings,
    engine: Engine,
    options_store: Options,
    installed: Sequence[extensions.Installed] = (),
    traces: Traces = UNTRACED,
) -> FastAPI:
    """An ASGI application over an engine, which it closes when it shuts down, and the traces with it. `installed` are
    loaded already.
    """
    loaded = [one.extension for one in installed if one.extension]

    desk = Desk(settings, traces=traces)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        dispatcher = Dispatcher(app, app.state.context, desk)
        courier = Courier(app.state.context, desk, count=app.state.metrics.count_call)
        dispatcher.start()
        courier.start()
        yield
        await dispatcher.stop()
        await courier.stop()
        await desk.finish()
        engine.close()
        desk.close()
        await to_thread.run_sync(traces.close)

    app = FastAPIOffline(  # its pages under /docs load nothing from elsewhere
        title="Darkroom",
        version=__version__,
        summary="A Stable Diffusion image server that speaks AUTOMATIC1111's API.",
        lifespan=lifespan,
        strict_content_type=False,  # A1111: a JSON body without a Content-Type is JSON
    )
    app.state.context = Context(
        settings=settings,
        engine=engine,
        options=options_store,
        scripts=extensions.registry(loaded),
        extensions=tuple(installed),
    )
    app.state.gate = Gate(settings)
    app.state.desk = desk
    app.state.limits = Limits(desk)
    app.state.metrics = metrics.Metrics(app.state.context, desk)
    answers.install(app, openai_errors.answer_http_error)
    for module in _ROUTES:
        app.include_router(module.router)
    if settings.api_server_stop:
        app.include_router(process.router)
    extensions.add_routes(app, loaded)
    _add_layers(app, settings)
    return app


def _add_layers(app: FastAPI, settings: Settings) -> None:
    """Innermost first: whatever a layer answers passes through those added after it."""
    app.add_middleware(Intake, desk=app.state.desk, limits=app.state.limits)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.is_guarded:
        app.add_middleware(Guard, gate=app.state.gate)
        if settings.open_metrics:
            app.add_middleware(metrics.OpenMetrics, metrics=app.state.metrics)
    app.add_middleware(OriginCheck, settings=settings)
    app.add_middleware(Boundary, stopping=app.state.desk.stopping)
    app.add_middleware(metrics.Meter, metrics=app.state.metrics)
    app.add_middleware(app.state.desk.traces.layer)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=1)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_origin_regex=settings.cors_allow_origins_regex or None,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
        allow_private_network=True,  # some browsers ask before a public page reaches a private address
        expose_headers=_EXPOSED,
    )
