"""Runs a script: answers the requests that its plan yields, one job each, and makes one answer of what it gives back.

A script has no more rights than its client: every request of its own passes through the same conversion and limits. An
interrupt ends all of them; the plan gets what there is. Plans run in worker threads.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from inspect import GEN_RUNNING, getgeneratorstate
from pathlib import Path
from random import Random

from anyio import to_thread
from fastapi import Request

from darkroom.api.context import Context, Series
from darkroom.api.convert import Prepared, to_spec
from darkroom.api.descriptions import describe as describe_picture
from darkroom.api.flow import check_inversion
from darkroom.api.jobs.attempt import (
    admit,
    drawn_seeds,
    is_repeatable,
    note_engine_job,
    note_pictures,
    options_of,
)
from darkroom.api.limits import charge
from darkroom.api.models import Generation
from darkroom.api.results import describe, encode_shot, finish, info, parameters, with_notes
from darkroom.api.running import finish_job, submit, while_connected
from darkroom.api.saving import save_all
from darkroom.api.scripts import Chosen
from darkroom.api.shots import Shot
from darkroom.api.upscaling import Workbench
from darkroom.engine.client import Event
from darkroom.errors import DarkroomError, LimitExceeded
from darkroom.images.captions import Ink
from darkroom.images.codecs import to_base64
from darkroom.options.values import OptionValues
from darkroom.scripts.plan import MAX_GRID_PIXELS, Ask, Made, Outcome, Plan, Result, Setting

_SEED_BITS = 53
"""What JSON can hold of a whole number."""

_FONT = "font_roboto"
"""The package whose font captions are drawn with; Pillow's own font if it is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScriptAnswer:
    """The JSON of an answer and what its headers say."""

    body: bytes
    job_id: str
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Done:
    """A job that has ended, with what its text says filled in."""

    prepared: Prepared
    event: Event
    outcome: Outcome


@dataclass(slots=True)
class _Run:
    """What is known while a script runs. `first` is its first job, whose document the answer extends."""

    request: Request
    context: Context
    wire: Generation
    options: OptionValues
    bench: Workbench
    stops: int
    series: Series
    pictures: int = 0
    stopped: bool = False
    first: _Done | None = None
    prepared: Prepared | None = None
    job_ids: list[str] = field(default_factory=list)
    ignored: dict[str, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    failure: DarkroomError | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)
    random: Random | None = None


async def run_script(request: Request, context: Context, wire: Generation, chosen: Chosen) -> ScriptAnswer:
    """Run a script to its end. Raises ClientGoneError, and whatever its requests are refused with."""
    options = options_of(request, context)
    plain = wire.model_copy(update={"script_name": None, "script_args": []})
    bench = Workbench(
        context.engine, task_id=wire.task_id, note=partial(note_engine_job, request), standing=context.standing
    )
    plan = chosen.script.plan(plain, chosen.arguments, _setting(context, chosen, options, bench))
    if not context.running():
        context.controls.begin()
    series = Series(task_id=wire.task_id, began=time.time())
    run = _Run(
        request=request,
        context=context,
        wire=wire,
        options=options,
        bench=bench,
        stops=context.controls.stops,
        series=series,
    )
    if is_repeatable(request):
        run.seeds = dict(drawn_seeds(request)) or {"random": secrets.randbits(_SEED_BITS)}
        run.random = Random(run.seeds["random"])
    context.series.append(series)
    try:
        return await while_connected(request, _drive(run, plan))
    finally:
        bench.drop()
        context.series.remove(series)


def _setting(context: Context, chosen: Chosen, options: OptionValues, bench: Workbench) -> Setting:
    return Setting(
        lists=chosen.lists,
        ink=Ink(
            font=_find_font(),
            active=options.grid_text_active_color,
            inactive=options.grid_text_inactive_color,
            background=options.grid_background_color,
        ),
        background=options.img2img_background_color,
        grid_background=options.grid_background_color,
        return_grid=options.return_grid,
        max_images=context.settings.max_images,
        max_pixels=context.settings.max_image_pixels,
        find_upscaler=partial(bench.find, options),
        max_grid_pixels=min(options.img_max_size_mp * 1_000_000, MAX_GRID_PIXELS),
    )


def _find_font() -> Path | None:
    found = find_spec(_FONT)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "files" / "Roboto-Regular.ttf"
    return path if path.is_file() else None


async def _drive(run: _Run, plan: Plan) -> ScriptAnswer:
    """Advance the plan until it gives its result."""
    limiter = run.context.workers
    try:
        asks, result = await to_thread.run_sync(_advance, plan, None, limiter=run.context.waiters)
        while result is None:
            outcomes = await _answer(run, asks)
            asks, result = await to_thread.run_sync(_advance, plan, outcomes, limiter=limiter)
    finally:
        # Its thread may still wait for an upscaler that nobody wants any more.
        if getgeneratorstate(plan) != GEN_RUNNING:
            plan.close()
    if run.failure and not result.cells:
        raise run.failure
    return await to_thread.run_sync(_make_answer, run, result, limiter=limiter)


def _advance(plan: Plan, outcomes: Sequence[Outcome] | None) -> tuple[Sequence[Ask], Result | None]:
    """The next requests, or the result. A StopIteration cannot leave a thread."""
    try:
        return (next(plan) if outcomes is None else plan.send(outcomes)), None
    except StopIteration as end:
        result: Result = end.value
        return (), result


async def _answer(run: _Run, asks: Sequence[Ask]) -> list[Outcome]:
    """Answer requests together, as many at once as one batch may hold; after an interrupt with nothing."""
    limiter = run.context.workers
    asks = [await _with_description(run, ask) for ask in asks]
    prepared = [await to_thread.run_sync(_prepare, run, ask, limiter=limiter) for ask in asks]
    together = max(run.context.settings.max_batch_size // max(run.wire.batch_size or 1, 1), 1)
    room = asyncio.Semaphore(together)
    await charge(run.request, *(job.spec for job in prepared if job))
    if any(prepared):
        model = next(job.checkpoint.title for job in prepared if job)
        admit(run.request, run.options, seeds=run.seeds, model=model)

    async def answer(ask: Ask, job: Prepared | None) -> _Done | None:
        async with room:
            return await _run_job(run, ask, job)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(*pair)) for pair in zip(asks, prepared, strict=True)]
    except* DarkroomError as errors:
        raise _first_of(errors) from None
    found = [task.result() for task in tasks]
    run.first = run.first or next((done for done in found if done and done.outcome.made), None)
    return [done.outcome if done else Outcome() for done in found]


async def _with_description(run: _Run, ask: Ask) -> Ask:
    """The request with what a network says of a picture behind its prompt, where that is wanted."""
    if ask.described is None or run.stopped:
        return ask
    describer, picture = ask.described
    caption, found = await describe_picture(picture, describer, run.context, run.options)
    run.warnings |= dict.fromkeys(found.warnings)
    prompt = ", ".join([*([ask.request.prompt] if ask.request.prompt else []), caption])
    return replace(ask, request=ask.request.model_copy(update={"prompt": prompt}))


def _first_of(errors: BaseExceptionGroup[DarkroomError]) -> DarkroomError:
    """The first of the errors of a group, which may hold groups itself."""
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _convert(run: _Run, wire: Generation) -> Prepared:
    context = run.context
    if run.random:
        drawn = {name: run.random.getrandbits(32) for name in ("seed", "subseed") if getattr(wire, name) in (None, -1)}
        wire = wire.model_copy(update=drawn)
    return to_spec(wire, run.options, context.settings, context.engine.checkpoints(), context.engine, run.bench)


def _prepare(run: _Run, ask: Ask) -> Prepared | None:
    """The job of a request. Raises LimitExceeded once the script's pictures are more than a request may have."""
    context = run.context
    try:
        prepared = _amended(_convert(run, ask.request), ask)
    except DarkroomError as error:
        if not ask.may_fail:
            raise
        _note_failure(run, error)
        return None
    run.pictures += prepared.spec.batch_size * prepared.spec.n_iter
    run.series.planned = max(run.series.planned + _batches(prepared), ask.planned * _batches(prepared))
    if run.pictures > context.settings.max_images:
        allowed = f"at most {context.settings.max_images} pictures"
        raise LimitExceeded("script_name", f"{run.pictures} pictures", allowed)
    run.prepared = run.prepared or prepared
    run.ignored |= dict.fromkeys(prepared.ignored)
    run.warnings |= dict.fromkeys(prepared.warnings)
    return prepared


def _amended(prepared: Prepared, ask: Ask) -> Prepared:
    """The job with what a request has no words for."""
    spec = prepared.spec
    if ask.notes:
        spec = replace(spec, params=(*_told(ask.notes), *spec.params))
    if ask.inversion and spec.init:
        spec = replace(spec, init=replace(spec.init, inversion=ask.inversion))
        check_inversion(spec)
    finishing = prepared.finishing
    if ask.colours is not None and finishing.targets:
        finishing = replace(finishing, targets=(ask.colours,))
    return replace(prepared, spec=spec, finishing=finishing, extra={**ask.notes, **prepared.extra})


def _told(notes: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in notes.items())


async def _run_job(run: _Run, ask: Ask, prepared: Prepared | None) -> _Done | None:
    context = run.context
    if prepared is None or _was_stopped(run):
        return None
    job_id = submit(context, prepared)
    run.job_ids.append(job_id)
    run.series.job_ids.add(job_id)
    note_engine_job(run.request, job_id)
    try:
        event = await finish_job(context, job_id)
    except DarkroomError as error:
        if not ask.may_fail:
            raise
        _note_failure(run, error)
        return None
    finally:
        run.series.job_ids.discard(job_id)
        run.series.finished += _batches(prepared)
    note_pictures(run.request, event)
    if event.status.state in {"interrupted", "cancelled"}:
        _stop(run)
    return await to_thread.run_sync(_finish, prepared, event, limiter=context.workers)


def _batches(prepared: Prepared) -> int:
    return prepared.spec.n_iter * prepared.spec.passes


def _was_stopped(run: _Run) -> bool:
    """Whether an interrupt has reached the script. A1111: one that came before it began is not meant for it."""
    stops = run.context.controls.stops
    if not run.job_ids:
        run.stops = stops
    return run.stopped or stops != run.stops


def _stop(run: _Run) -> None:
    """An interrupt of one of its jobs ends a script's others."""
    run.stopped = True
    for job_id in run.job_ids:
        run.context.engine.interrupt(job_id)


def _note_failure(run: _Run, error: DarkroomError) -> None:
    run.failure = run.failure or error
    run.warnings[f"a cell is empty: {error}"] = None


def _finish(prepared: Prepared, event: Event) -> _Done:
    prepared = with_notes(prepared, event)
    spec = prepared.spec
    indices = sorted(done.index for done in event.pictures)
    shots = [shot for shot in finish(prepared, event) if not shot.suffix]
    made = tuple(
        Made(
            picture=shot.picture,
            text=shot.text,
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            seed=spec.seeds[index],
            subseed=spec.subseeds[index],
        )
        for index, shot in zip(indices, shots, strict=True)
    )

    def describe_with(notes: Mapping[str, object]) -> str:
        told = replace(spec, params=(*spec.params, *_told(notes)))
        return describe(replace(prepared, spec=told), indices[0] if indices else 0)

    return _Done(prepared=prepared, event=event, outcome=Outcome(made=made, describe=describe_with))


def _make_answer(run: _Run, result: Result) -> ScriptAnswer:
    """The whole answer as JSON, also where nothing was made."""
    wire = run.wire
    prepared = run.first.prepared if run.first else run.prepared or _convert(run, wire)
    shots = [
        Shot(picture=made.picture, text=made.text, seed=made.seed, prompt=made.prompt, place=place)
        for place, made in enumerate(result.pictures)
    ]
    if getattr(wire, "save_images", False):
        _save(run, prepared, shots, result)
    images = shots if getattr(wire, "send_images", True) else []
    body = {
        "images": [to_base64(encode_shot(shot, prepared)) for shot in images],
        "parameters": parameters(wire, prepared),
        "info": json.dumps(_document(run, prepared, result)),
    }
    return ScriptAnswer(
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        job_id=run.job_ids[0] if run.job_ids else "",
        ignored=tuple(run.ignored),
        warnings=tuple(run.warnings),
    )


def _save(run: _Run, prepared: Prepared, shots: Sequence[Shot], result: Result) -> None:
    """Write the pictures, and the first sheet as a grid.

    A1111: what a script puts together bears no text in an answer, but in its file the one that the answer has for it.
    """
    sheets = {id(made.picture) for made in result.sheets}
    shots = [replace(shot, text=shot.text or text) for shot, text in zip(shots, result.texts, strict=False)]
    grids = [shot for shot in shots if id(shot.picture) in sheets]
    cells = [shot for shot in shots if id(shot.picture) not in sheets]
    save_all(cells, next(iter(grids), None), prepared, run.context.settings)


def _document(run: _Run, prepared: Prepared, result: Result) -> dict[str, object]:
    """The `info` of a script: that of its first job, with all its prompts, seeds and texts."""
    status = run.first.event.status if run.first else None
    document: dict[str, object] = json.loads(info(run.wire, prepared, status, []))
    if not result.cells:
        return document
    cells = result.cells
    return document | {
        "all_prompts": [cell.prompt for cell in cells],
        "all_negative_prompts": [cell.negative_prompt for cell in cells],
        "all_seeds": [cell.seed for cell in cells],
        "all_subseeds": [cell.subseed for cell in cells],
        "index_of_first_image": result.first,
        "infotexts": list(result.texts),
    }
