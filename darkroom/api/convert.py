"""Turns what was asked into what will be done: every default filled, every name resolved, every limit kept.

Refuses early, with the field, the value and what is allowed. Decodes pictures, but never touches a network.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from darkroom.api.checkpoints import choose_checkpoint, find_checkpoint
from darkroom.api.ignored import ignored_fields
from darkroom.api.models import Generation, Img2Img
from darkroom.api.start import MIN_SIDE, Start, make_start
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.overlay import Finishing
from darkroom.jobs.spec import CheckpointInfo, JobSpec
from darkroom.prompt.grammar import strip_comments
from darkroom.sampling.names import AUTOMATIC, Resolved, effective_scheduler, find_scheduler, resolve
from darkroom.settings import NO_EFFECT_YET, OptionValues, Settings

T = TypeVar("T")

LAST_RANDOM_SEED = 4_294_967_293
MAX_SEED = 2**63 - 1

_READ_BEFORE_OVERRIDES = frozenset({"initial_noise_multiplier"})
"""A1111: options that fill in a request's field before its overrides apply, which therefore change nothing."""

_TAKES_ETA = frozenset(
    {
        "Euler a", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM fast",
        "DPM adaptive", "DDIM", "DDIM CFG++",
    }
)  # fmt: skip
_TAKES_CHURN = frozenset({"Euler", "Heun", "DPM2"})
_TAKES_NOISE_SCALE = _TAKES_CHURN | {
    "DPM fast", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE",
}  # fmt: skip

_CHURN_KNOBS = (
    ("s_churn", 0.0, "Sigma churn", _TAKES_CHURN),
    ("s_tmin", 0.0, "Sigma tmin", _TAKES_CHURN),
    ("s_tmax", 0.0, "Sigma tmax", _TAKES_CHURN),
    ("s_noise", 1.0, "Sigma noise", _TAKES_NOISE_SCALE),
)
"""Field, neutral value, entry of the generation text, samplers that read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request made ready. Seeds are those planned: an img2img with few pictures may use fewer of them.

    `extra` goes into the generation text, with its values as JSON has them. `ignored` names what has no effect,
    `warnings` says what was replaced.
    """

    spec: JobSpec
    checkpoint: CheckpointInfo
    options: OptionValues
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    finishing: Finishing = field(default_factory=Finishing)
    extra: dict[str, object] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overridden:
    values: OptionValues
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]


def to_spec(
    wire: Generation, options: OptionValues, settings: Settings, checkpoints: Sequence[CheckpointInfo]
) -> Prepared:
    """The job that a request means. Raises BadRequest and its kin, InitImageError, NoCheckpointError."""
    overridden = _override(options, wire.override_settings or {}, checkpoints)
    values = overridden.values
    checkpoint = choose_checkpoint(checkpoints, values.sd_model_checkpoint)
    width, height = _size(wire, checkpoint, settings)
    batch_size, n_iter = _counts(wire, settings)
    steps = _limited("steps", wire.steps, 1, settings.max_steps)
    seeds, subseeds = _seeds(wire, batch_size * n_iter)
    names = resolve(wire.sampler_name, wire.sampler_index_or_default, wire.scheduler)
    start = _start(wire, values, settings, (width, height), batch_size)
    extra = _extra(wire, names, values, start)
    knobs, notes = _knobs(wire, names, values)
    extra.update(notes)
    count = (start.batch_size if start else batch_size) * n_iter
    spec = JobSpec(
        kind="img2img" if start else "txt2img",
        checkpoint=checkpoint.key,
        prompt=_text("prompt", _given("prompt", wire.prompt), values, settings),
        negative_prompt=_text("negative_prompt", wire.negative_prompt or "", values, settings),
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
        comma_backtrack=values.comma_padding_backtrack,
        init=start.init if start else None,
        task_id=wire.task_id,
        params=tuple((key, str(value)) for key, value in extra.items()),
        **knobs,
    )
    return Prepared(
        spec=spec,
        checkpoint=checkpoint,
        options=values,
        seeds=seeds,
        subseeds=subseeds,
        finishing=start.finishing if start else Finishing(),
        extra=extra,
        ignored=(*ignored_fields(wire), *overridden.ignored),
        warnings=(*overridden.warnings, *_name_warnings(wire, names)),
    )


def _given(name: str, value: T | None) -> T:
    """A value that must not be null. A1111 lets null pass and fails later."""
    if value is None:
        raise BadRequest(name, None, "it must not be null")
    return value


def _text(name: str, prompt: str, values: OptionValues, settings: Settings) -> str:
    """A prompt as it is drawn and recorded: without comments."""
    if len(prompt) > settings.max_prompt_chars:
        raise LimitExceeded(name, f"{len(prompt)} characters", f"at most {settings.max_prompt_chars}")
    return strip_comments(prompt) if values.enable_prompt_comments else prompt


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
    defaults = OptionValues()
    for name, value in given.items():
        if name not in OptionValues.model_fields:
            ignored.append(f"override_settings.{name}")
        elif name == "sd_model_checkpoint" and not _is_known(checkpoints, value):
            if value:
                warnings.append(f"override_settings.sd_model_checkpoint {str(value)[:80]!r} is unknown and was dropped")
        elif name in _READ_BEFORE_OVERRIDES:
            if value != getattr(values, name):
                ignored.append(f"override_settings.{name}")
        elif value is not None:
            changes[name] = value
            if name in NO_EFFECT_YET and value != getattr(defaults, name):
                ignored.append(f"override_settings.{name}")
    merged = values.merged(changes, field="override_settings.")
    return _Overridden(values=merged, ignored=tuple(ignored), warnings=tuple(warnings))


def _is_known(checkpoints: Sequence[CheckpointInfo], name: object) -> bool:
    return isinstance(name, str) and find_checkpoint(checkpoints, name) is not None


def _size(wire: Generation, checkpoint: CheckpointInfo, settings: Settings) -> tuple[int, int]:
    """Width and height; what the client left out is the checkpoint's native size."""
    given, native = wire.model_fields_set, checkpoint.native_size
    width = _limited("width", wire.width if "width" in given else native, MIN_SIDE, settings.max_width)
    height = _limited("height", wire.height if "height" in given else native, MIN_SIDE, settings.max_height)
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


def _extra(wire: Generation, names: Resolved, values: OptionValues, start: Start | None) -> dict[str, object]:
    """What the generation text says beyond its fixed entries, in the order in which A1111 collects it."""
    extra = dict(start.extra) if start else {}
    texts = (wire.prompt or "", wire.negative_prompt or "")
    if values.emphasis != "Original" and any(bracket in text for text in texts for bracket in "(["):
        extra["Emphasis"] = values.emphasis
    if start and start.init.noise_multiplier != 1:
        extra["Noise multiplier"] = start.init.noise_multiplier
    label = effective_scheduler(names.sampler, names.scheduler)
    if names.sampler.family == "sigma" and label != AUTOMATIC:
        extra["Schedule type"] = label
    if start and start.init.extra_noise > 0:
        extra["Extra noise"] = start.init.extra_noise
    return extra


def _knobs(wire: Generation, names: Resolved, values: OptionValues) -> tuple[dict[str, float], dict[str, object]]:
    """Numbers for the sampler, and their entries in the generation text.

    A1111: an option that is not neutral beats the request, and only then the text tells.
    """
    ancestral = names.sampler.family == "sigma"
    eta = wire.eta if wire.eta is not None else values.eta_ancestral if ancestral else values.eta_ddim
    knobs, notes = {"eta": eta}, dict[str, object]()
    if names.sampler.name in _TAKES_ETA and eta != names.sampler.default_eta:
        notes["Eta" if ancestral else "Eta DDIM"] = eta
    for name, neutral, entry, readers in _CHURN_KNOBS:
        asked, option = getattr(wire, name), getattr(values, name)
        knobs[name] = option if asked is None or option != neutral else asked
        if option != neutral and names.sampler.name in readers:
            notes[entry] = option
    knobs["s_tmax"] = knobs["s_tmax"] or float("inf")
    return knobs, notes


def _name_warnings(wire: Generation, names: Resolved) -> tuple[str, ...]:
    warnings = []
    if names.fallback:
        asked = wire.sampler_name or wire.sampler_index_or_default
        warnings.append(f"sampler_name {asked[:80]!r} is unknown; {names.sampler.name} was used")
    if wire.scheduler and find_scheduler(wire.scheduler) is None:
        warnings.append(f"scheduler {wire.scheduler[:80]!r} is unknown; {AUTOMATIC} was used")
    return tuple(warnings)
