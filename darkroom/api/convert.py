"""Turns what was asked into what will be done: every default filled, every name resolved, every limit kept.

Refuses early, with the field, the value and what is allowed. Decodes pictures, but never touches a network.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from darkroom.api.checkpoints import choose_checkpoint, find_checkpoint
from darkroom.api.flow import default_scale, flow_options, settled_names
from darkroom.api.guidance import (
    calls,
    check_prompt,
    choose_refiner,
    editing_notes,
    emphasis_notes,
    guidance_options,
    sampling_notes,
)
from darkroom.api.hires import First, Second, asked_size, make_second
from darkroom.api.ignored import ignored_fields
from darkroom.api.models import Generation, Img2Img
from darkroom.api.networks import (
    Networks,
    Shelf,
    choose_networks,
    choose_vae,
    tiles,
    token_merging,
    vae_fallback,
    with_default_networks,
)
from darkroom.api.refusals import check_job
from darkroom.api.sampling import sampler_knobs, sampling_options, schedule_notes, start_notes, table_notes
from darkroom.api.sdxl import sdxl_options
from darkroom.api.start import MIN_SIDE, Start, make_start
from darkroom.api.styles import ChosenStyles, choose_styles
from darkroom.api.two_passes import in_two_passes
from darkroom.api.upscaling import Bench, faces_of, find_start_upscaler, missing_restorer, with_tiles
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.overlay import Finishing
from darkroom.jobs.spec import CheckpointInfo, Hires, JobSpec
from darkroom.options.values import STEERING, OptionValues, has_no_effect
from darkroom.prompt.grammar import strip_comments
from darkroom.prompt.schedule import Timeline
from darkroom.sampling.names import AUTOMATIC, Resolved, find_scheduler, resolve
from darkroom.settings import Settings

T = TypeVar("T")

LAST_RANDOM_SEED = 4_294_967_293
MAX_SEED = 2**63 - 1

_READ_BEFORE_OVERRIDES = frozenset({"initial_noise_multiplier"})
"""A1111: options that fill in a request's field before its overrides apply, which therefore change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request made ready. Seeds are those planned: an img2img with few pictures may use fewer of them.

    `extra` goes into the generation text, with its values as JSON has them. `ignored` names what has no effect,
    `warnings` says what was replaced. `plain_prompt` is the prompt before the `styles` went into it. `options` are the
    job's, `served` the server's when it was admitted.
    """

    spec: JobSpec
    checkpoint: CheckpointInfo
    options: OptionValues
    served: OptionValues
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    finishing: Finishing = field(default_factory=Finishing)
    vae_hash: str | None = None
    plain_prompt: str = ""
    styles: tuple[str, ...] = ()
    extra: dict[str, object] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overridden:
    values: OptionValues
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]


def to_spec(
    wire: Generation,
    options: OptionValues,
    settings: Settings,
    checkpoints: Sequence[CheckpointInfo],
    shelf: Shelf,
    bench: Bench | None = None,
) -> Prepared:
    """The job that a request means; `shelf` says what there is beside the checkpoints, on the `bench` pictures are
    enlarged that img2img starts from. Raises BadRequest and its kin, InitImageError, NoCheckpointError.
    """
    overridden = _override(options, wire.override_settings or {}, checkpoints)
    settings.freezing.check(options, overridden.values)
    checkpoint = choose_checkpoint(checkpoints, overridden.values.sd_model_checkpoint)
    asked = _Asked(
        wire=in_two_passes(wire, _size(wire, checkpoint, settings), checkpoint),
        values=overridden.values,
        settings=settings,
        checkpoint=checkpoint,
        checkpoints=checkpoints,
        shelf=shelf,
        bench=bench,
    )
    found = _decide(asked)
    extra = _extra(asked, found)
    spec = _spec(asked, found, extra)
    check_job(spec)
    return Prepared(
        spec=spec,
        checkpoint=checkpoint,
        options=asked.values,
        served=options,
        seeds=found.seeds,
        subseeds=found.subseeds,
        finishing=found.start.finishing if found.start else Finishing(),
        vae_hash=found.networks.vae.short_hash,
        plain_prompt=wire.prompt or "",
        styles=tuple(wire.styles or ()),
        extra=extra,
        ignored=(*ignored_fields(asked.wire), *overridden.ignored),
        warnings=(*overridden.warnings, *_warnings(asked.wire, found), *_missing(spec, shelf)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request and what it is read against; `values` are the options with its overrides."""

    wire: Generation
    values: OptionValues
    settings: Settings
    checkpoint: CheckpointInfo
    checkpoints: Sequence[CheckpointInfo]
    shelf: Shelf
    bench: Bench | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the fields of a request came to. `size` is the first pass's (width, height), `encoding` what the generation
    text says of the way from prompts to networks.
    """

    size: tuple[int, int]
    batch_size: int
    n_iter: int
    steps: int
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    names: Resolved
    styles: ChosenStyles
    prompts: tuple[str, str]
    start: Start | None
    second: Second | None
    networks: Networks
    encoding: dict[str, object]


def _decide(asked: _Asked) -> _Found:
    """Read the fields one after the other. Raises what `to_spec` raises."""
    wire, values, settings = asked.wire, asked.values, asked.settings
    size = _size(wire, asked.checkpoint, settings)
    batch_size, n_iter = _counts(wire, settings)
    steps = _limited("steps", wire.steps, 1, settings.max_steps)
    seeds, subseeds = _seeds(wire, batch_size * n_iter)
    names = settled_names(resolve(wire.sampler_name, wire.sampler_index_or_default, wire.scheduler), asked.checkpoint)
    styles = choose_styles(wire.styles, settings)
    start = _start(asked, size, batch_size)
    prompts = _prompts(wire, styles, values, settings)
    first = First(
        checkpoint=asked.checkpoint,
        size=size,
        steps=steps,
        names=names,
        prompts=(with_default_networks(prompts[0], values, asked.shelf), prompts[1]),
        hires_prompts=_prompts(wire, styles, values, settings, "hr_"),
    )
    second = make_second(wire, first, values, settings, asked.checkpoints)
    networks, encoding = _encoding(asked, first, second)
    return _Found(
        size=second.first_size if second else size,
        batch_size=start.batch_size if start else batch_size,
        n_iter=n_iter,
        steps=steps,
        seeds=seeds,
        subseeds=subseeds,
        names=names,
        styles=styles,
        prompts=first.prompts,
        start=start,
        second=second,
        networks=networks,
        encoding=encoding,
    )


def _encoding(asked: _Asked, first: First, second: Second | None) -> tuple[Networks, dict[str, object]]:
    """The networks that the prompts of all passes take in, and what the generation text says of how they are read."""
    values, sampler = asked.values, first.names.sampler
    edits = editing_notes(values, first.prompts, sampler, first.steps, second.hires if second else None)
    passes = (first.prompts, first.hires_prompts) if second else (first.prompts,)
    timeline = Timeline(steps=calls(sampler, first.steps), old_rules=values.use_old_scheduling)
    networks = choose_networks(asked.wire, passes, timeline, asked.checkpoint, values, asked.shelf)
    weighted = emphasis_notes(values, passes, timeline)
    return networks, {**networks.before, **dict(edits), **networks.after, **dict(weighted)}


def _spec(asked: _Asked, found: _Found, extra: Mapping[str, object]) -> JobSpec:
    """The job without anything that the request left open."""
    wire, values, networks = asked.wire, asked.values, found.networks
    return replace(
        _with_options(_drawing(asked, found), asked),
        refiner=choose_refiner(wire, values, asked.checkpoint, asked.checkpoints, asked.shelf),
        init=found.start.init if found.start else None,
        hires=_hires(wire, values, found.second, networks, asked.shelf),
        vae=networks.vae.name,
        adapters=networks.first.adapters,
        faces=faces_of(wire, values),
        task_id=wire.task_id,
        params=(*networks.vae.entries, *_told(extra, found.second)),
    )


def _drawing(asked: _Asked, found: _Found) -> JobSpec:
    """What is drawn first, from which noise and by which sampler."""
    wire, count = asked.wire, found.batch_size * found.n_iter
    return JobSpec(
        kind="img2img" if found.start else "txt2img",
        checkpoint=asked.checkpoint.key,
        traits=asked.checkpoint.traits,
        prompt=found.prompts[0],
        negative_prompt=found.prompts[1],
        width=found.size[0],
        height=found.size[1],
        steps=found.steps,
        cfg_scale=_scale(wire, asked.checkpoint),
        sampler=found.names.sampler.name,
        scheduler=found.names.scheduler,
        seeds=found.seeds[:count],
        subseeds=found.subseeds[:count],
        batch_size=found.batch_size,
        n_iter=found.n_iter,
        subseed_strength=wire.subseed_strength or 0.0,
        seed_resize_from=_seed_resize(wire, asked.settings),
        **sampler_knobs(wire, found.names.sampler, asked.values)[0],
    )


def _with_options(spec: JobSpec, asked: _Asked) -> JobSpec:
    """The job with what the options decide of it."""
    wire, values = asked.wire, asked.values
    return replace(
        spec,
        mask_weight=values.inpainting_mask_weight,
        seed_delta=values.eta_noise_seed_delta,
        noise_source=values.randn_source,
        clip_skip=values.CLIP_stop_at_last_layers,
        emphasis=values.emphasis,
        old_emphasis=values.use_old_emphasis_implementation,
        old_prompt_editing=values.use_old_scheduling,
        comma_backtrack=values.comma_padding_backtrack,
        sampling=sampling_options(values),
        guidance=guidance_options(wire, values, asked.checkpoint),
        sdxl=sdxl_options(values),
        flow=flow_options(wire, values),
        eight_bits=values.fp8_storage,
        vae_fallback=vae_fallback(values),
        decoder=values.sd_vae_decode_method,
        tiling=tiles(wire, values),
        token_merging=token_merging(wire, values)[0],
    )


def _scale(wire: Generation, checkpoint: CheckpointInfo) -> float:
    """How strongly the prompt guides."""
    usual = default_scale(checkpoint)
    if usual is not None and "cfg_scale" not in wire.model_fields_set:
        return usual
    return _given("cfg_scale", wire.cfg_scale)


def _given(name: str, value: T | None) -> T:
    """A value that must not be null. A1111 lets null pass and fails later."""
    if value is None:
        raise BadRequest(name, None, "it must not be null")
    return value


def _prompts(
    wire: Generation, styles: ChosenStyles, values: OptionValues, settings: Settings, prefix: str = ""
) -> tuple[str, str]:
    """Prompt and negative prompt of a pass; where the second pass has none, the first one's."""
    positive = getattr(wire, f"{prefix}prompt", None) or _given("prompt", wire.prompt)
    negative = getattr(wire, f"{prefix}negative_prompt", None) or wire.negative_prompt or ""
    return (
        _text(f"{prefix}prompt", styles.positive(positive), values, settings),
        _text(f"{prefix}negative_prompt", styles.negative(negative), values, settings),
    )


def _told(extra: Mapping[str, object], second: Second | None) -> tuple[tuple[str, str], ...]:
    """The entries of the texts, those that differ from picture to picture filled in."""
    entries = {**extra, **(second.texts if second else {})}
    return tuple((key, str(value)) for key, value in entries.items() if value is not None)


def _text(name: str, prompt: str, values: OptionValues, settings: Settings) -> str:
    """A prompt as it is drawn and recorded: without comments."""
    if len(prompt) > settings.max_prompt_chars:
        raise LimitExceeded(name, f"{len(prompt)} characters", f"at most {settings.max_prompt_chars}")
    shown = strip_comments(prompt) if values.enable_prompt_comments else prompt
    check_prompt(name, shown, values)
    return shown


def _limited(name: str, value: int | None, low: int, high: int) -> int:
    """A whole number within an operator's limit."""
    number = _given(name, value)
    if number > high:
        raise LimitExceeded(name, number, f"from {low} to {high}")
    if number < low:
        raise BadRequest(name, number, f"from {low} to {high}")
    return number


def _override(values: OptionValues, given: Mapping[str, Any], checkpoints: Sequence[CheckpointInfo]) -> _Overridden:
    """The options of this job alone. A1111: an unknown checkpoint is dropped; here it is also named."""
    changes: dict[str, Any] = {}
    ignored: list[str] = []
    warnings: list[str] = []
    for name, value in given.items():
        if name == "sd_model_checkpoint" and not _is_known(checkpoints, value):
            if value:
                warnings.append(f"override_settings.sd_model_checkpoint {str(value)[:80]!r} is unknown and was dropped")
        elif name in _READ_BEFORE_OVERRIDES:
            if value != values[name]:
                ignored.append(f"override_settings.{name}")
        elif has_no_effect(name, value, values):
            ignored.append(f"override_settings.{name}")
        elif name in STEERING and value is not None:
            changes[name] = value
    merged = values.merged(changes, field="override_settings.")
    return _Overridden(values=merged, ignored=tuple(ignored), warnings=tuple(warnings))


def _is_known(checkpoints: Sequence[CheckpointInfo], name: object) -> bool:
    return isinstance(name, str) and find_checkpoint(checkpoints, name) is not None


def _size(wire: Generation, checkpoint: CheckpointInfo, settings: Settings) -> tuple[int, int]:
    """Width and height; what the client left out is the checkpoint's native size."""
    asked_width, asked_height = asked_size(wire, checkpoint.native_size)
    width = _limited(*asked_width, MIN_SIDE, settings.max_width)
    height = _limited(*asked_height, MIN_SIDE, settings.max_height)
    if width * height > settings.max_pixels:
        raise LimitExceeded("width x height", f"{width}x{height}", f"at most {settings.max_pixels} pixels")
    return width, height


def _counts(wire: Generation, settings: Settings) -> tuple[int, int]:
    batch_size = _limited("batch_size", wire.batch_size, 1, settings.max_batch_size)
    n_iter = _limited("n_iter", wire.n_iter, 1, settings.max_images)
    if batch_size * n_iter > settings.max_images:
        raise LimitExceeded("batch_size * n_iter", batch_size * n_iter, f"at most {settings.max_images} pictures")
    return batch_size, n_iter


def _seeds(wire: Generation, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Seeds and variation seeds. With a variation strength the seed stays and only the variation seed grows."""
    seed, subseed = _seed("seed", wire.seed, count), _seed("subseed", wire.subseed, count)
    step = 0 if wire.subseed_strength else 1
    return tuple(seed + i * step for i in range(count)), tuple(subseed + i for i in range(count))


def _seed(name: str, value: int | None, count: int) -> int:
    if value is None or value == -1:
        return secrets.randbelow(LAST_RANDOM_SEED + 1)
    if not 0 <= value <= MAX_SEED - count:
        raise BadRequest(name, value, f"-1 (draws one), or from 0 to {MAX_SEED - count}")
    return value


def _seed_resize(wire: Generation, settings: Settings) -> tuple[int, int] | None:
    height, width = wire.seed_resize_from_h or 0, wire.seed_resize_from_w or 0
    if height <= 0 or width <= 0:
        return None
    return (
        _limited("seed_resize_from_h", height, MIN_SIDE, settings.max_height),
        _limited("seed_resize_from_w", width, MIN_SIDE, settings.max_width),
    )


def _start(asked: _Asked, size: tuple[int, int], batch_size: int) -> Start | None:
    wire, values = asked.wire, asked.values
    if not isinstance(wire, Img2Img):
        return None
    if wire.denoising_strength < 0:
        raise BadRequest("denoising_strength", wire.denoising_strength, "from 0 to 1")
    upscaler = find_start_upscaler(values, asked.bench)
    start = make_start(wire, values, size, batch_size, asked.settings, upscaler.enlarge)
    return replace(start, warnings=(*start.warnings, *upscaler.warnings))


def _hires(
    wire: Generation, values: OptionValues, second: Second | None, networks: Networks, shelf: Shelf
) -> Hires | None:
    """The second pass with its own networks."""
    if second is None:
        return None
    vae = networks.vae if second.checkpoint is None else choose_vae(second.checkpoint, values, shelf)
    merged = token_merging(wire, values)[1]
    kept = values.save_images_before_highres_fix and values.samples_save and bool(getattr(wire, "save_images", False))
    found = replace(second.hires, vae=vae.name, adapters=networks.hires.adapters, token_merging=merged)
    return with_tiles(replace(found, keeps_first=kept), values, shelf)


def _extra(asked: _Asked, found: _Found) -> dict[str, object]:
    """What the generation text says beyond its fixed entries, in the order in which A1111 collects it."""
    wire, values, start, second, names = asked.wire, asked.values, found.start, found.second, found.names
    extra = dict(start.extra) if start else dict(second.extra) if second else {}
    extra.update(found.encoding)
    extra.update(table_notes(values))
    if start and start.init.noise_multiplier != 1:
        extra["Noise multiplier"] = start.init.noise_multiplier
    extra.update(schedule_notes(names.sampler, names.scheduler, values, wire.override_settings or {}))
    if start is None:
        extra.update(start_notes(names.sampler, values))
    if start and start.init.extra_noise > 0:
        extra["Extra noise"] = start.init.extra_noise
    extra.update(sampler_knobs(wire, names.sampler, values)[1])
    extra.update(sampling_notes(values))
    extra.update(second.later if second else {})
    return extra


def _warnings(wire: Generation, found: _Found) -> tuple[str, ...]:
    """What was replaced, field by field."""
    return (
        *_name_warnings(wire, found.names),
        *found.styles.warnings,
        *(found.start.warnings if found.start else ()),
        *(found.second.warnings if found.second else ()),
        *found.networks.warnings,
    )


def _missing(spec: JobSpec, shelf: Shelf) -> tuple[str, ...]:
    """What was asked for and has no file."""
    missing = missing_restorer(spec.faces.restorer, shelf) if spec.faces else None
    return (missing,) if missing else ()


def _name_warnings(wire: Generation, names: Resolved) -> tuple[str, ...]:
    warnings = []
    if names.fallback:
        asked = wire.sampler_name or wire.sampler_index_or_default
        warnings.append(f"sampler_name {asked[:80]!r} is unknown; {names.sampler.name} was used")
    if wire.scheduler and find_scheduler(wire.scheduler) is None:
        warnings.append(f"scheduler {wire.scheduler[:80]!r} is unknown; {AUTOMATIC} was used")
    return tuple(warnings)
