"""The axes of an X/Y/Z plot: how their values are read, what a value changes in a request, and how it is shown."""

import csv
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import Literal

from darkroom.api.models import Generation
from darkroom.errors import BadRequest, LimitExceeded, UnknownName
from darkroom.scripts.plan import Tab
from darkroom.scripts.requests import changed, with_options
from darkroom.scripts.signature import Choices, Lists

Value = str | int | float | tuple[str, ...]
Apply = Callable[[Generation, "Axis", Value, Sequence[Value]], Generation]
Kind = Literal["text", "int", "float", "bool", "order"]

_MOST_POINTS = 1000

_INT = r"[+-]?\s*\d+"
_FLOAT = r"[+-]?\s*\d+(?:\.\d*)?"


def _ranges(number: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    ends = rf"\s*({number})\s*-\s*({number})"
    return re.compile(rf"{ends}(?:\s*\(\s*({number})\s*\))?\s*"), re.compile(rf"{ends}\s*\[\s*(\d+)\s*\]\s*")


_RANGES = MappingProxyType({"int": _ranges(_INT), "float": _ranges(_FLOAT)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One thing that may vary. `target` is the field or option that its values go to.

    `cost` says how expensive it is to go from one value to another: expensive axes vary least often.
    """

    label: str
    kind: Kind = "text"
    apply: Apply
    target: str = ""
    choices: Choices | None = None
    cost: float = 0.0
    bare: bool = False
    loose: bool = False
    tabs: tuple[Tab, ...] = ("txt2img", "img2img")

    def show(self, value: Value) -> str:
        """The text beside a row or column."""
        if isinstance(value, tuple):
            return ", ".join(value)
        if self.label == NOTHING:
            return ""
        text = str(round(value, 8) if isinstance(value, float) else value)
        if self.bare:
            return text.rsplit("/", 1)[-1]
        return f"{self.label}: {text}"


def _set_field(request: Generation, axis: Axis, value: Value, _: Sequence[Value]) -> Generation:
    return changed(request, **{axis.target: value})


def _set_option(request: Generation, axis: Axis, value: Value, _: Sequence[Value]) -> Generation:
    return with_options(request, **{axis.target: value})


def _leave(request: Generation, _: Axis, __: Value, ___: Sequence[Value]) -> Generation:
    return request


def _search_and_replace(request: Generation, _: Axis, value: Value, values: Sequence[Value]) -> Generation:
    wanted, prompts = str(values[0]), (request.prompt or "", request.negative_prompt or "")
    if not any(wanted in prompt for prompt in prompts):
        raise BadRequest("script_args", wanted, "a text that the prompt or the negative prompt has")
    prompt, negative = (prompt.replace(wanted, str(value)) for prompt in prompts)
    return changed(request, prompt=prompt, negative_prompt=negative)


def _reorder(request: Generation, _: Axis, value: Value, __: Sequence[Value]) -> Generation:
    """Words change places with one another; what lies between them stays."""
    assert isinstance(value, tuple)
    prompt = request.prompt or ""
    missing = next((word for word in value if word not in prompt), None)
    if missing is not None:
        raise BadRequest("script_args", missing, "a text that the prompt has")
    result, rest = "", prompt
    for old, new in zip(sorted(value, key=prompt.find), value, strict=True):
        before, _found, rest = rest.partition(old)
        result += before + new
    return changed(request, prompt=result + rest)


def _add_styles(request: Generation, _: Axis, value: Value, __: Sequence[Value]) -> Generation:
    names = [name.strip() for name in str(value).split(",")]
    return changed(request, styles=[*(request.styles or []), *filter(None, names)])


def _set_unipc_order(request: Generation, axis: Axis, value: Value, _: Sequence[Value]) -> Generation:
    order = min(int(str(value)), (request.steps or 2) - 1)
    return with_options(request, **{axis.target: order})


_FACE_RESTORERS = MappingProxyType({"codeformer": "CodeFormer", "gfpgan": "GFPGAN"})


def _restore_faces(request: Generation, _: Axis, value: Value, __: Sequence[Value]) -> Generation:
    word = str(value).lower()
    if word in _FACE_RESTORERS:
        return with_options(changed(request, restore_faces=True), face_restoration_model=_FACE_RESTORERS[word])
    return changed(request, restore_faces=word in {"true", "yes", "y", "1"})


def _set_size(request: Generation, _: Axis, value: Value, __: Sequence[Value]) -> Generation:
    found = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", str(value))
    if not found:
        raise BadRequest("script_args", value, "WIDTHxHEIGHT")
    return changed(request, width=int(found[1]), height=int(found[2]))


def _set_vae(request: Generation, axis: Axis, value: Value, _: Sequence[Value]) -> Generation:
    """A1111: a name that nobody knows means the automatic choice."""
    name = str(value)
    wanted = {"auto": "Automatic", "automatic": "Automatic", "none": "None"}.get(name.lower(), name)
    return with_options(request, **{axis.target: wanted})


def _or_none(lists: Lists) -> Sequence[str]:
    return ("None", *lists.checkpoints)


def _booleans(_: Lists) -> Sequence[str]:
    return ("False", "True")


def _field(label: str, target: str, kind: Kind = "text", tab: Tab | None = None) -> Axis:
    return Axis(label=label, kind=kind, apply=_set_field, target=target, tabs=(tab,) if tab else ("txt2img", "img2img"))


def _chosen(
    label: str, target: str, choices: Choices, *, bare: bool = False, cost: float = 0.0, loose: bool = False,
    tab: Tab | None = None, apply: Apply = _set_field,
) -> Axis:  # fmt: skip
    tabs: tuple[Tab, ...] = (tab,) if tab else ("txt2img", "img2img")
    return Axis(label=label, apply=apply, target=target, choices=choices, bare=bare, cost=cost, loose=loose, tabs=tabs)


def _option(label: str, target: str, kind: Kind = "float", choices: Choices | None = None, cost: float = 0.0) -> Axis:
    return Axis(label=label, kind=kind, apply=_set_option, target=target, choices=choices, cost=cost)


NOTHING = "Nothing"
SEEDS = frozenset({"Seed", "Var. seed"})

AXES = (
    Axis(label=NOTHING, apply=_leave),
    _field("Seed", "seed", "int"),
    _field("Var. seed", "subseed", "int"),
    _field("Var. strength", "subseed_strength", "float"),
    _field("Steps", "steps", "int"),
    _field("Hires steps", "hr_second_pass_steps", "int", "txt2img"),
    _field("CFG Scale", "cfg_scale", "float"),
    _field("Image CFG Scale", "image_cfg_scale", "float", "img2img"),
    Axis(label="Prompt S/R", apply=_search_and_replace, bare=True),
    Axis(label="Prompt order", kind="order", apply=_reorder),
    _chosen("Sampler", "sampler_name", lambda lists: lists.samplers, bare=True),
    _chosen("Hires sampler", "hr_sampler_name", lambda lists: lists.samplers, tab="txt2img"),
    _chosen(
        "Checkpoint name", "sd_model_checkpoint", lambda lists: lists.checkpoints, bare=True, cost=1.0, loose=True,
        apply=_set_option,
    ),
    _field("Negative Guidance minimum sigma", "s_min_uncond", "float"),
    _field("Sigma Churn", "s_churn", "float"),
    _field("Sigma min", "s_tmin", "float"),
    _field("Sigma max", "s_tmax", "float"),
    _field("Sigma noise", "s_noise", "float"),
    _chosen("Schedule type", "scheduler", lambda lists: lists.schedulers),
    _option("Schedule min sigma", "sigma_min"),
    _option("Schedule max sigma", "sigma_max"),
    _option("Schedule rho", "rho"),
    _option("Beta schedule alpha", "beta_dist_alpha"),
    _option("Beta schedule beta", "beta_dist_beta"),
    _field("Eta", "eta", "float"),
    _option("Clip skip", "CLIP_stop_at_last_layers", "int"),
    _field("Denoising", "denoising_strength", "float"),
    _field("Initial noise multiplier", "initial_noise_multiplier", "float"),
    _option("Extra noise", "img2img_extra_noise"),
    _chosen("Hires upscaler", "hr_upscaler", lambda lists: (*lists.latent_modes, *lists.upscalers), tab="txt2img"),
    Axis(
        label="Cond. Image Mask Weight", kind="float", apply=_set_option, target="inpainting_mask_weight",
        tabs=("img2img",),
    ),
    _chosen("VAE", "sd_vae", lambda lists: ("Automatic", "None", *lists.vaes), cost=0.7, loose=True, apply=_set_vae),
    _chosen("Styles", "styles", lambda lists: lists.styles, loose=True, apply=_add_styles),
    Axis(label="UniPC Order", kind="int", apply=_set_unipc_order, target="uni_pc_order", cost=0.5),
    Axis(label="Face restore", apply=_restore_faces, bare=True),
    _option("Token merging ratio", "token_merging_ratio"),
    _option("Token merging ratio high-res", "token_merging_ratio_hr"),
    _option("Always discard next-to-last sigma", "always_discard_next_to_last_sigma", "bool", _booleans),
    _option("SGM noise multiplier", "sgm_noise_multiplier", "bool", _booleans),
    _chosen("Refiner checkpoint", "refiner_checkpoint", _or_none, cost=1.0, loose=True),
    _field("Refiner switch at", "refiner_switch_at", "float"),
    _option("RNG source", "randn_source", "text", lambda _: ("GPU", "CPU", "NV")),
    _option("FP8 mode", "fp8_storage", "text", lambda _: ("Disable", "Enable for SDXL", "Enable"), cost=0.9),
    Axis(label="Size", apply=_set_size),
)  # fmt: skip
"""In the order of their numbers; each tab counts those that it has."""


def axes_of(tab: str) -> tuple[Axis, ...]:
    """The axes of a tab, by their numbers there."""
    return tuple(axis for axis in AXES if tab in axis.tabs)


def labels_of(lists: Lists) -> Sequence[str]:
    """What an axis may be called."""
    return tuple(axis.label for axis in axes_of(lists.tab))


def read_values(axis: Axis, text: str, picked: Sequence[str], lists: Lists, field: str) -> list[Value]:
    """The values of an axis from its text, or, where it has choices, from those picked. Raises BadRequest."""
    if axis.label == NOTHING:
        return [0]
    try:
        words = list(picked) if axis.choices and picked else split(text)
    except csv.Error as error:
        raise BadRequest(field, text, f"comma-separated values: {error}") from None
    if axis.kind == "order":
        return _orders(words, field)
    if axis.kind in _RANGES:
        found: list[Value] = []
        for word in words:
            found += _numbers(word, axis.kind, field)
            if len(found) > _MOST_POINTS:
                raise LimitExceeded(field, text, f"at most {_MOST_POINTS} values")
        return found
    if axis.choices:
        known = list(axis.choices(lists))
        return [_match(axis, word, known, field) for word in words]
    return list(words)


def split(text: str) -> list[str]:
    """The entries of comma-separated values, without the blanks around them. Raises csv.Error."""
    lines = csv.reader([",".join(text.splitlines())], skipinitialspace=True)
    return [entry.strip() for line in lines for entry in line if entry.strip()]


def _orders(words: list[str], field: str) -> list[Value]:
    if math.factorial(len(words)) > _MOST_POINTS:
        raise LimitExceeded(field, f"{len(words)} words", f"at most {_MOST_POINTS} orders")
    return list(permutations(words))


def _numbers(word: str, kind: Kind, field: str) -> list[Value]:
    """The numbers of one entry: a single one, `a-b`, `a-b (+step)` or `a-b [count]`."""
    stepped, counted = _RANGES[kind]
    convert: Callable[[str], float] = int if kind == "int" else float
    bounds = stepped.fullmatch(word)
    if bounds:
        low, high, step = (convert(part.replace(" ", "")) for part in (bounds[1], bounds[2], bounds[3] or "1"))
        return list(_steps(low, high, step, field))
    bounds = counted.fullmatch(word)
    if bounds:
        low, high = (convert(part.replace(" ", "")) for part in (bounds[1], bounds[2]))
        return list(_points(low, high, int(bounds[3]), kind, field))
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequest(field, word, "a number, or a range: 1-5, 1-10 (+2), 1-10 [4]")
    return [_whole(word, value) if kind == "int" else value]


def _whole(word: str, value: float) -> int:
    """All digits of a whole number; of another its whole part."""
    try:
        return int(word)
    except ValueError:
        return int(value)


def _steps(low: float, high: float, step: float, field: str) -> Sequence[float]:
    """From `low` by steps to `high`, which is one of them if it is met."""
    count = math.floor((high - low) / step + 1e-9) + 1 if step else 0
    if not 1 <= count <= _MOST_POINTS:
        raise BadRequest(field, f"{low}-{high} (+{step})", f"a range of 1 to {_MOST_POINTS} values")
    return [low + place * step for place in range(count)]


def _points(low: float, high: float, count: int, kind: Kind, field: str) -> Sequence[float]:
    """So many values evenly from `low` to `high`."""
    if not 1 <= count <= _MOST_POINTS:
        raise BadRequest(field, f"[{count}]", f"from 1 to {_MOST_POINTS} values")
    step = (high - low) / (count - 1) if count > 1 else 0.0
    found = [low + place * step for place in range(count)]
    return [int(value) for value in found] if kind == "int" else found


def _match(axis: Axis, word: str, known: Sequence[str], field: str) -> str:
    """A choice in any letter case; where an axis is loose also by a part of its name, or as it is."""
    exact = next((name for name in known if name.lower() == word.lower()), None)
    if exact is not None:
        return exact
    if axis.loose:
        if axis.target not in {"sd_model_checkpoint", "refiner_checkpoint"}:
            return word
        part = min((name for name in known if word in name), key=len, default=None)
        if part is not None:
            return part
    raise UnknownName(field, word, known)
