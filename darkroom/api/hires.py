"""From the hires fields of a txt2img request to the second pass: its size, its names resolved, its entries of the text.

Knows numbers and names; of pictures only the one that may stand in for the first pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from darkroom.api.checkpoints import closest_checkpoint
from darkroom.api.flow import settled_scheduler
from darkroom.api.models import Generation, Txt2Img
from darkroom.api.sampling import sampler_knobs, schedule_notes
from darkroom.api.start import MIN_SIDE
from darkroom.errors import BadRequest, LimitExceeded, UnknownName
from darkroom.images.codecs import decode_base64, flatten, to_pixels
from darkroom.jobs.conversions import first_pass_size
from darkroom.jobs.latent_modes import DEFAULT_LATENT_MODE
from darkroom.jobs.spec import CheckpointInfo, Hires, Picture
from darkroom.options.values import OptionValues
from darkroom.sampling.names import (
    AUTOMATIC,
    SAMPLERS,
    Resolved,
    Sampler,
    find_sampler,
    find_scheduler,
)
from darkroom.settings import Settings

SAME_CHECKPOINT = "Use same checkpoint"
SAME_SAMPLER = "Use same sampler"
SAME_SCHEDULER = "Use same scheduler"
"""What the menus of clients say; to A1111 only the first means anything."""

_PLAIN = "Uniform"
"""The schedule that is the model's own."""

_SCHEDULE = "Schedule type"

Size = tuple[int, int]
"""Width and height in pixels."""


class Target(NamedTuple):
    """The size that the first picture is brought to, and how many latent columns and rows are then cut off."""

    size: Size
    crop: Size = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What the second pass takes over from the first where it is not told otherwise.

    `size` is as asked for, (width, height); `hires_prompts` are the second pass's own already.
    """

    checkpoint: CheckpointInfo
    size: Size
    steps: int
    names: Resolved
    prompts: tuple[str, str]
    hires_prompts: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """A second pass. `checkpoint` is one of its own, `first_size` the first one's (width, height).

    `extra` are its entries of the generation text that are set before drawing begins, None where one differs from
    picture to picture: those are in `texts`. `later` follow what the first pass notes, unless that has them already.
    """

    hires: Hires
    checkpoint: CheckpointInfo | None
    first_size: Size
    extra: dict[str, object]
    later: dict[str, object]
    texts: dict[str, str]
    warnings: tuple[str, ...] = ()


def asked_size(wire: Generation, native: int) -> tuple[tuple[str, int | None], tuple[str, int | None]]:
    """Width and height, each with the field that it comes from; what the client left out is `native`.

    A1111: the old fields for the first pass count with hires fix and without.
    """
    if isinstance(wire, Txt2Img) and (wire.firstphase_width or wire.firstphase_height):
        return ("firstphase_width", wire.firstphase_width), ("firstphase_height", wire.firstphase_height)
    given = wire.model_fields_set
    width = wire.width if "width" in given else native
    height = wire.height if "height" in given else native
    return ("width", width), ("height", height)


def make_second(
    wire: Generation, first: First, values: OptionValues, settings: Settings, checkpoints: Sequence[CheckpointInfo]
) -> Second | None:
    """The second pass, None where none is asked for. Raises BadImage, BadRequest, UnknownName."""
    if not isinstance(wire, Txt2Img) or not wire.enable_hr:
        return None
    strength = _strength(wire.denoising_strength)
    size, resize = first.size, _resize(wire)
    if values.use_old_hires_fix_width_height:
        size, resize = first_pass_size(*first.size), first.size
    # A factor beyond the widest picture is too large for any.
    target = _limited(target_of(size, min(wire.hr_scale or 0, settings.max_width), resize), wire, settings)
    chosen = _choose(wire, first, checkpoints)
    schedule = _schedule_notes(wire, chosen, values)
    return Second(
        hires=_hires(wire, first, chosen, target, strength, values, settings),
        checkpoint=chosen.checkpoint,
        first_size=size,
        extra={
            "Denoising strength": strength,
            **_named(wire, first, chosen),
            "Hires schedule type": _told_schedule(schedule, first.names, values),
            **_sized(wire, resize),
        },
        later=_later(wire, chosen.sampler, schedule, values),
        texts=_told_prompts(first),
        warnings=chosen.warnings,
    )


class _Chosen(NamedTuple):
    """The names of the second pass resolved: a checkpoint of its own or None, a sampler, a schedule's label."""

    checkpoint: CheckpointInfo | None
    sampler: Sampler
    scheduler: str
    warnings: tuple[str, ...]


def _choose(wire: Txt2Img, first: First, checkpoints: Sequence[CheckpointInfo]) -> _Chosen:
    checkpoint = _checkpoint(wire.hr_checkpoint_name, checkpoints)
    sampler = _sampler(wire.hr_sampler_name) or first.names.sampler
    scheduler, known = _scheduler(wire.hr_scheduler, first.names.scheduler)
    scheduler = settled_scheduler(sampler, scheduler, checkpoint or first.checkpoint)
    warnings = () if known else (f"hr_scheduler {str(wire.hr_scheduler)[:80]!r} is unknown; {_PLAIN} was used",)
    return _Chosen(checkpoint, sampler, scheduler, warnings)


def _hires(
    wire: Txt2Img,
    first: First,
    chosen: _Chosen,
    target: Target,
    strength: float,
    values: OptionValues,
    settings: Settings,
) -> Hires:
    """The pass itself; its networks are chosen with those of the first one."""
    checkpoint = chosen.checkpoint or first.checkpoint
    return Hires(
        checkpoint=checkpoint.key,
        traits=checkpoint.traits,
        size=target.size,
        crop=target.crop,
        upscaler=DEFAULT_LATENT_MODE if wire.hr_upscaler is None else wire.hr_upscaler,
        steps=_steps(wire.hr_second_pass_steps, settings) or first.steps,
        denoising_strength=strength,
        sampler=chosen.sampler.name,
        scheduler=chosen.scheduler,
        prompt=first.hires_prompts[0],
        negative_prompt=first.hires_prompts[1],
        eta=sampler_knobs(wire, chosen.sampler, values)[0]["eta"],
        extra_noise=values.img2img_extra_noise,
        # A1111: not where the second pass has a checkpoint of its own.
        early_texts=values.hires_fix_use_firstpass_conds and chosen.checkpoint is None,
        picture=_picture(wire, values, settings),
    )


def _schedule_notes(wire: Txt2Img, chosen: _Chosen, values: OptionValues) -> Mapping[str, object]:
    """The entries about the schedule. A1111: an unknown one goes unmentioned."""
    if chosen.warnings:
        return {}
    return schedule_notes(chosen.sampler, chosen.scheduler, values, wire.override_settings or {})


def _named(wire: Txt2Img, first: First, chosen: _Chosen) -> dict[str, object]:
    """The entries about the names that are the second pass's own; its prompts are told picture by picture."""
    named: dict[str, object] = {}
    if chosen.checkpoint:
        named["Hires checkpoint"] = chosen.checkpoint.short_title
    if wire.hr_sampler_name is not None and wire.hr_sampler_name not in {SAME_SAMPLER, first.names.sampler.name}:
        named["Hires sampler"] = wire.hr_sampler_name
    return named | {"Hires prompt": None, "Hires negative prompt": None}


def _sized(wire: Txt2Img, resize: Size) -> dict[str, object]:
    """The entries about the way to the larger picture."""
    sized: dict[str, object] = (
        {"Hires upscale": wire.hr_scale} if resize == (0, 0) else {"Hires resize": f"{resize[0]}x{resize[1]}"}
    )
    if wire.hr_second_pass_steps:
        sized["Hires steps"] = wire.hr_second_pass_steps
    if wire.hr_upscaler is not None:
        sized["Hires upscaler"] = wire.hr_upscaler
    return sized


def target_of(size: Size, scale: float, resize: Size = (0, 0)) -> Target:
    """Where a first picture of `size` goes: `scale` times as large, or to `resize`, where 0 follows the other side.

    With both sides given the picture covers that size, and in latent space loses what sticks out.
    """
    (width, height), (x, y) = size, resize
    if x == 0 and y == 0:
        return Target((int(width * scale), int(height * scale)))
    by_width, by_height = (x, x * height // width), (y * width // height, y)
    if y == 0 or x == 0:
        return Target(by_width if y == 0 else by_height)
    covering = by_width if width * y < x * height else by_height
    return Target(covering, ((covering[0] - x) // 8, (covering[1] - y) // 8))


def _strength(given: float | None) -> float:
    if given is None or given <= 0:
        raise BadRequest("denoising_strength", given, "above 0 and up to 1 where enable_hr is true")
    return given


def _resize(wire: Txt2Img) -> Size:
    """The size that is asked for by its sides."""
    for name in ("hr_resize_x", "hr_resize_y"):
        side = getattr(wire, name) or 0
        if side < 0:
            raise BadRequest(name, side, f"0 (follows the other side), or from {MIN_SIDE}")
    return wire.hr_resize_x or 0, wire.hr_resize_y or 0


def _limited(target: Target, wire: Txt2Img, settings: Settings) -> Target:
    """The target if it is a size that may be drawn."""
    width, height = target.size
    asked = {name: getattr(wire, name) for name in ("hr_resize_x", "hr_resize_y") if getattr(wire, name)}
    name, value = next(iter(asked.items()), ("hr_scale", wire.hr_scale))
    if min(width, height) < MIN_SIDE:
        raise BadRequest(name, value, f"so that both sides of the larger picture are at least {MIN_SIDE} pixels")
    if width > settings.max_width or height > settings.max_height or width * height > settings.max_pixels:
        most = f"{settings.max_width}x{settings.max_height} and {settings.max_pixels} pixels"
        raise LimitExceeded(name, value, f"the larger picture would be {width}x{height}; at most {most}")
    return target


def _checkpoint(name: str | None, checkpoints: Sequence[CheckpointInfo]) -> CheckpointInfo | None:
    if not name or name == SAME_CHECKPOINT:
        return None
    return closest_checkpoint(checkpoints, "hr_checkpoint_name", name)


def _sampler(name: str | None) -> Sampler | None:
    if not name or name == SAME_SAMPLER:
        return None
    sampler = find_sampler(name)
    if sampler is None:
        raise UnknownName("hr_sampler_name", name, [known.name for known in SAMPLERS])
    return sampler


def _scheduler(name: str | None, same: str) -> tuple[str, bool]:
    """The scheduler's label, and whether it was known. A1111: the empty text is "Automatic", an unknown one plain."""
    if name is None or name == SAME_SCHEDULER:
        return same, True
    found = find_scheduler(name or AUTOMATIC)
    return (found.label, True) if found else (_PLAIN, False)


def _steps(given: int | None, settings: Settings) -> int:
    steps = given or 0
    if steps > settings.max_steps:
        raise LimitExceeded("hr_second_pass_steps", steps, f"0 (as many as the first pass), up to {settings.max_steps}")
    if steps < 0:
        raise BadRequest("hr_second_pass_steps", steps, f"0 (as many as the first pass), up to {settings.max_steps}")
    return steps


def _picture(wire: Txt2Img, values: OptionValues, settings: Settings) -> Picture | None:
    """What stands in for the first pass. A1111 fails on it where it comes through the API."""
    if not wire.firstpass_image:
        return None
    picture = decode_base64(wire.firstpass_image, field="firstpass_image", max_pixels=settings.max_image_pixels)
    if min(picture.size) < MIN_SIDE or picture.width * picture.height > settings.max_pixels:
        allowed = f"sides from {MIN_SIDE} and at most {settings.max_pixels} pixels"
        raise LimitExceeded("firstpass_image", f"{picture.width}x{picture.height}", allowed)
    return to_pixels(flatten(picture, values.img2img_background_color))


def _told_schedule(notes: Mapping[str, object], first: Resolved, values: OptionValues) -> object:
    """The label of a schedule that the first pass has not recorded, or None."""
    label = notes.get(_SCHEDULE)
    return label if label != schedule_notes(first.sampler, first.scheduler, values, {}).get(_SCHEDULE) else None


def _later(wire: Txt2Img, sampler: Sampler, schedule: Mapping[str, object], values: OptionValues) -> dict[str, object]:
    """The entries that come up while the second pass begins."""
    notes = {key: value for key, value in schedule.items() if key != _SCHEDULE}
    if values.img2img_extra_noise > 0:
        notes["Extra noise"] = values.img2img_extra_noise
    return notes | sampler_knobs(wire, sampler, values)[1]


def _told_prompts(first: First) -> dict[str, str]:
    """The prompts of the second pass where they are not the first one's."""
    named = zip(("Hires prompt", "Hires negative prompt"), first.hires_prompts, first.prompts, strict=True)
    return {name: text for name, text, same in named if text != same}
