"""The generation text of a picture: written from a job, and read back into names and values.

Knows the format and the order of its entries. Knows nothing of files, requests or networks.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from darkroom import __version__
from darkroom.jobs import conversions
from darkroom.jobs.conversions import UseStyles
from darkroom.jobs.spec import CheckpointInfo, JobSpec
from darkroom.prompt.styles import Style
from darkroom.sampling.names import effective_scheduler, find_sampler

VERSION = f"darkroom {__version__}"

_KEY_BACKWARDS = re.compile(r"[\w \-/]*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])+"')
_SIZE = re.compile(r"^(\d+)x(\d+)$")
_NEGATIVE = "Negative prompt:"

_FIXED = (
    "Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "Image CFG scale", "Seed",
    "Face restoration", "Size",
    "Model hash", "Model", "FP8 weight", "Cache FP16 weight for LoRA", "VAE hash", "VAE", "Variation seed",
    "Variation seed strength", "Seed resize from", "Denoising strength", "Conditional mask weight", "Clip skip", "ENSD",
    "Token merging ratio", "Token merging ratio hr", "Init image hash", "RNG", "Tiling",
)  # fmt: skip
"""The entries that have a place of their own, in order; all others follow in the order in which they came up."""

TEXT_ONLY = frozenset(_FIXED) - {"Schedule type", "Denoising strength"}
"""Entries that A1111 does not count among a job's `extra_generation_params`, wherever they came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Which of the optional entries a text gets."""

    model_name: bool = True
    model_hash: bool = True
    version: bool = True


def schedule_label(spec: JobSpec) -> str:
    """What the text calls the schedule: the one in effect, or Automatic for the model's own.

    A1111: samplers that choose training timesteps record a scheduler that they do not use.
    """
    sampler = find_sampler(spec.sampler)
    return effective_scheduler(sampler, spec.scheduler) if sampler else spec.scheduler


def write(spec: JobSpec, checkpoint: CheckpointInfo, index: int, shown: Shown | None = None) -> str:
    """The generation text of picture `index` of a job. What `spec.params` say beats what the spec's fields say."""
    said = {**dict(_fixed_entries(spec, checkpoint, index, shown or Shown())), **dict(spec.params)}
    entries = {key: said[key] for key in _FIXED if key in said} | said
    if (shown or Shown()).version:
        entries["Version"] = VERSION
    negative = f"{_NEGATIVE} {spec.negative_prompt}" if spec.negative_prompt else ""
    lines = (spec.prompt, negative, _join(entries))
    return "\n".join(line for line in lines if line).strip()


def _fixed_entries(spec: JobSpec, checkpoint: CheckpointInfo, index: int, shown: Shown) -> Iterator[tuple[str, str]]:
    yield "Steps", str(spec.steps)
    yield "Sampler", spec.sampler
    yield "Schedule type", schedule_label(spec)
    yield "CFG scale", str(spec.cfg_scale)
    yield "Seed", str(spec.seeds[index])
    yield "Size", f"{spec.width}x{spec.height}"
    if shown.model_hash and checkpoint.short_hash:
        yield "Model hash", checkpoint.short_hash
    if shown.model_name:
        yield "Model", checkpoint.base
    if spec.subseed_strength:
        yield "Variation seed", str(spec.subseeds[index])
        yield "Variation seed strength", str(spec.subseed_strength)
    if spec.seed_resize_from:
        height, width = spec.seed_resize_from
        yield "Seed resize from", f"{width}x{height}"
    yield from ((key, str(value)) for key, value, told in _unusual(spec) if told)


def _unusual(spec: JobSpec) -> Iterator[tuple[str, object, bool]]:
    """Entries that most texts do not have, and whether this one has them."""
    init, hires, guidance = spec.init, spec.hires, spec.guidance
    strength = init.denoising_strength if init else hires.denoising_strength if hires else None
    merged_later = hires.token_merging if hires else 0
    yield "Distilled CFG Scale", spec.flow.guidance, spec.traits.is_distilled
    yield "Image CFG scale", guidance.image_scale, guidance.image_scale is not None
    yield "Face restoration", spec.faces.restorer if spec.faces else "", spec.faces is not None
    yield "Denoising strength", strength, strength is not None
    yield "Conditional mask weight", spec.mask_weight, spec.weighs_mask
    yield "Clip skip", spec.clip_skip, spec.clip_skip > 1
    yield "ENSD", spec.seed_delta, spec.seed_delta != 0 and _uses_seed_delta(spec)
    yield "FP8 weight", spec.eight_bits, spec.model.is_in_eight_bits
    yield "Cache FP16 weight for LoRA", False, spec.model.is_in_eight_bits
    yield "Token merging ratio", spec.token_merging, spec.token_merging != 0
    yield "Token merging ratio hr", merged_later, merged_later != 0
    yield "DeepCache interval", guidance.deep_cache, guidance.deep_cache > 1
    yield "Init image hash", init.digest if init else "", bool(init and init.digest)
    yield "RNG", spec.noise_source, spec.noise_source != "GPU"
    yield "Tiling", spec.tiling, spec.tiling


def _uses_seed_delta(spec: JobSpec) -> bool:
    sampler = find_sampler(spec.sampler)
    return sampler is not None and sampler.uses_ensd and spec.eta != 0


def _join(entries: Mapping[str, str]) -> str:
    return ", ".join(key if key == value else f"{key}: {_quote(value)}" for key, value in entries.items())


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,\n:]", value) else value


def _unquote(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a text is read.

    `styles` are looked for in its prompts and cut out unless `use_styles` is Ignore; they are listed under
    "Styles array" with Apply, and with Apply if any if there are some. `skip` names entries that are left out. With
    `old_hires` the size of a text is that of its larger picture. With `compatible` a text of an old version asks for
    that version's rules.
    """

    styles: tuple[Style, ...] = ()
    use_styles: UseStyles = "Apply if any"
    skip: frozenset[str] = frozenset()
    old_hires: bool = False
    compatible: bool = True


def read(text: str, reading: Reading | None = None) -> dict[str, object]:
    """Names and values of a generation text, those that it leaves out filled in. Values that were read are texts.

    The last line holds the entries if it has at least three; `Prompt` and `Negative prompt` are added.
    """
    how = reading or Reading()
    *body, last = text.strip().split("\n")
    pairs = list(_pairs(last))
    if len(pairs) < 3:
        body, pairs = [*body, last], []
    found: dict[str, object] = dict(_split_sizes(pairs))
    conversions.take_out_styles(found, _split_prompts(body), how.styles, how.use_styles)
    conversions.complete(found, old_hires=how.old_hires)
    if how.compatible:
        conversions.ask_for_old_rules(found)
    return {key: value for key, value in found.items() if key not in how.skip}


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The entries of a line: a key of two or more word characters, blanks, `-` and `/`; a colon; a value up to a comma.

    A loop and not one expression, because that would take quadratic time on hostile texts.
    """
    place = 0
    while (colon := line.find(":", place)) >= 0:
        run = _KEY_BACKWARDS.match(line[place:colon][::-1])
        key = run[0][::-1].lstrip(" -/") if run else ""
        place = colon + 1
        if len(key) >= 2:
            value, place = _value(line, place)
            yield key, value


def _value(line: str, start: int) -> tuple[str, int]:
    """A value, in quotes or not, and where the next entry begins."""
    while line[start : start + 1].isspace():
        start += 1
    quoted = _QUOTED.match(line, start)
    if quoted and line[quoted.end() : quoted.end() + 1] in {"", ","}:
        return quoted[0], quoted.end() + 1
    comma = line.find(",", start)
    end = comma if comma >= 0 else len(line)
    return line[start:end], end + 1


def _split_sizes(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for key, raw in pairs:
        value = _unquote(raw)
        if not value:  # A1111: an entry without a value is none
            continue
        size = _SIZE.match(value)
        if size:
            yield f"{key}-1", size[1]
            yield f"{key}-2", size[2]
        else:
            yield key, value


def _split_prompts(lines: Iterable[str]) -> tuple[str, str]:
    positive: list[str] = []
    negative: list[str] = []
    target = positive
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            target = negative
            target.append(line.removeprefix(_NEGATIVE).strip())
        else:
            target.append(line)
    return "\n".join(positive), "\n".join(negative)
