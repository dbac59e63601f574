"""Turns what was asked into what will be done: every default filled, every name resolved, every limit kept.

Refuses early, with the field, the value and what is allowed. Decodes pictures, but never touches a network.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from darkroom.api.checkpoints import choose_checkpoint, find_checkpoint
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
from darkroom.api.sampling import sampler_knobs, sampling_options, schedule_notes, start_notes, table_notes
from darkroom.api.start import MIN_SIDE, Start, make_start
from darkroom.api.styles import ChosenStyles, choose_styles
from darkroom.api.two_passes import in_two_passes
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
) -> Prepared:
    """The job that a request means; `shelf` says what there is beside the checkpoints. Raises BadRequest and its kin,
    InitImageError, NoCheckpointError.
    """
    overridden = _override(options, wire.override_settings or {}, checkpoints)
    settings.freezing.check(options, overridden.values)
    values = overridden.values
    checkpoint = choose_checkpoint(checkpoints, values.sd_model_checkpoint)
    wire = in_two_passes(wire, _size(wire, checkpoint, settings), checkpoint)
    width, height = _size(wire, checkpoint, settings)
    batch_size, n_iter = _counts(wire, settings)
    steps = _limited("steps", wire.steps, 1, settings.max_steps)
    seeds, subseeds = _seeds(wire, batch_size * n_iter)
    names = resolve(wire.sampler_name, wire.sampler_index_or_default, wire.scheduler)
    styles = choose_styles(wire.styles, settings)
    start = _start(wire, values, settings, (width, height), batch_size)
    prompts = _prompts(wire, styles, values, settings)
    prompts = with_default_networks(prompts[0], values, shelf), prompts[1]
    first = First(
        checkpoint=checkpoint,
        size=(width, height),
        steps=steps,
        names=names,
        prompts=prompts,
        hires_prompts=_prompts(wire, styles, values, settings, "hr_"),
    )
    second = make_second(wire, first, values, settings, checkpoints)
    width, height = second.first_size if second else (width, height)
    edits = editing_notes(values, prompts, names.sampler, steps, second.hires if second else None)
    passes = (prompts, first.hires_prompts) if second else (prompts,)
    timeline = Timeline(steps=calls(names.sampler, steps), old_rules=values.use_old_scheduling)
    networks = choose_networks(wire, passes, timeline, checkpoint, values, shelf)
    weighted = emphasis_notes(values, passes, timeline)
    encoding = {**networks.before, **dict(edits), **networks.after, **dict(weighted)}
    extra = _extra(wire, names, values, start, second, encoding)
    knobs, notes = sampler_knobs(wire, names.sampler, values)
    extra.update(notes)
    extra.update(sampling_notes(values))
    extra.update(second.later if second else {})
    count = (start.batch_size if start else batch_size) * n_iter
    spec = JobSpec(
        kind="img2img" if start else "txt2img",
        checkpoint=checkpoint.key,
        traits=checkpoint.traits,
        mask_weight=values.inpainting_mask_weight,
        prompt=prompts[0],
        negative_prompt=prompts[1],
        width=width,
        height=height,
        steps=steps,
        cfg_scale=_given("cfg_scale", wire.cfg_scale),
        sampler=names.sampler.name,
        scheduler=names.scheduler,
        seeds=seeds[:count],
        subseeds=subseeds[:count],
        batch_size=start.batch_size if start else batch_size,
        n_iter=n_iter,
        subseed_strength=wire.subseed_strength or 0.0,
        seed_resize_from=_seed_resize(wire, settings),
        seed_delta=values.eta_noise_seed_delta,
        noise_source=values.randn_source,
        clip_skip=values.CLIP_stop_at_last_layers,
        emphasis=values.emphasis,
        old_emphasis=values.use_old_emphasis_implementation,
        old_prompt_editing=values.use_old_scheduling,
        comma_backtrack=values.comma_padding_backtrack,
        sampling=sampling_options(values),
        guidance=guidance_options(wire, values, checkpoint),
        refiner=choose_refiner(wire, values, checkpoint, checkpoints, shelf),
        init=start.init if start else None,
        hires=_hires(wire, values, second, networks, shelf),
        vae=networks.vae.name,
        vae_fallback=vae_fallback(values),
        adapters=networks.first.adapters,
        tiling=tiles(wire, values),
        token_merging=token_merging(wire, values)[0],
        task_id=wire.task_id,
        params=(*networks.vae.entries, *_told(extra, second)),
        **knobs,
    )
    return Prepared(
        spec=spec,
        checkpoint=checkpoint,
        options=values,
        served=options,
        seeds=seeds,
        subseeds=subseeds,
        finishing=start.finishing if start else Finishing(),
        vae_hash=networks.vae.short_hash,
        plain_prompt=wire.prompt or "",
        styles=tuple(wire.styles or ()),
        extra=extra,
        ignored=(*ignored_fields(wire), *overridden.ignored),
        warnings=(
            *overridden.warnings,
            *_name_warnings(wire, names),
            *styles.warnings,
            *(start.warnings if start else ()),
            *(second.warnings if second else ()),
            *networks.warnings,
        ),
    )


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


def _start(
    wire: Generation, values: OptionValues, settings: Settings, size: tuple[int, int], batch_size: int
) -> Start | None:
    if not isinstance(wire, Img2Img):
        return None
    if wire.denoising_strength < 0:
        raise BadRequest("denoising_strength", wire.denoising_strength, "from 0 to 1")
    return make_start(wire, values, size, batch_size, settings)


def _hires(
    wire: Generation, values: OptionValues, second: Second | None, networks: Networks, shelf: Shelf
) -> Hires | None:
    """The second pass with its own networks."""
    if second is None:
        return None
    vae = networks.vae if second.checkpoint is None else choose_vae(second.checkpoint, values, shelf)
    merged = token_merging(wire, values)[1]
    return replace(second.hires, vae=vae.name, adapters=networks.hires.adapters, token_merging=merged)


def _extra(
    wire: Generation,
    names: Resolved,
    values: OptionValues,
    start: Start | None,
    second: Second | None,
    encoding: Mapping[str, object],
) -> dict[str, object]:
    """What the generation text says beyond its fixed entries, in the order in which A1111 collects it."""
    extra = dict(start.extra) if start else dict(second.extra) if second else {}
    extra.update(encoding)
    extra.update(table_notes(values))
    if start and start.init.noise_multiplier != 1:
        extra["Noise multiplier"] = start.init.noise_multiplier
    extra.update(schedule_notes(names.sampler, names.scheduler, values, wire.override_settings or {}))
    if start is None:
        extra.update(start_notes(names.sampler, values))
    if start and start.init.extra_noise > 0:
        extra["Extra noise"] = start.init.extra_noise
    return extra


def _name_warnings(wire: Generation, names: Resolved) -> tuple[str, ...]:
    warnings = []
    if names.fallback:
        asked = wire.sampler_name or wire.sampler_index_or_default
        warnings.append(f"sampler_name {asked[:80]!r} is unknown; {names.sampler.name} was used")
    if wire.scheduler and find_scheduler(wire.scheduler) is None:
        warnings.append(f"scheduler {wire.scheduler[:80]!r} is unknown; {AUTOMATIC} was used")
    return tuple(warnings)
