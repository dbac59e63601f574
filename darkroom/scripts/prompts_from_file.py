"""Prompts from file or textbox: one request per line; a line may be a prompt or a command line of fields."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from darkroom.api.models import Generation
from darkroom.errors import BadRequest
from darkroom.sampling.names import SAMPLERS
from darkroom.scripts.plan import Ask, Plan, Result, Script, Setting
from darkroom.scripts.requests import changed, drawn, with_options
from darkroom.scripts.signature import choice, flag, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    iterate: bool = flag("Iterate seed every line", False)
    same_seed: bool = flag("Use same random seed for all lines", False)
    position: str = choice("Insert prompts at the", "start", ("start", "end"))
    lines: str = words("List of prompt inputs")


def _sampler(text: str) -> str:
    """A sampler's name from its name or an alias, in any letter case. Raises ValueError."""
    for sampler in SAMPLERS:
        if text.lower() in {sampler.name.lower(), *(alias.lower() for alias in sampler.aliases)}:
            return sampler.name
    raise ValueError(f"unknown sampler: {text}")


def _boolean(text: str) -> bool:
    return text == "true"


_TAGS: Mapping[str, Callable[[str], object]] = MappingProxyType(
    {
        "sd_model": str,
        "outpath_samples": str,
        "outpath_grids": str,
        "prompt_for_display": str,
        "styles": str,
        "seed": int,
        "subseed_strength": float,
        "subseed": int,
        "seed_resize_from_h": int,
        "seed_resize_from_w": int,
        "sampler_index": int,
        "sampler_name": _sampler,
        "batch_size": int,
        "n_iter": int,
        "steps": int,
        "cfg_scale": float,
        "width": int,
        "height": int,
        "restore_faces": _boolean,
        "tiling": _boolean,
        "do_not_save_samples": _boolean,
        "do_not_save_grid": _boolean,
    }
)
"""What a line may set beside the prompts, and how its word is read."""

_MEANINGLESS = frozenset({"outpath_samples", "outpath_grids", "prompt_for_display"})
"""A1111: where files go is the client's choice there; here it never is."""


def plan(request: Generation, arguments: Arguments, setting: Setting) -> Plan:
    """The pictures of all lines, in order."""
    if (arguments.iterate or arguments.same_seed) and request.seed in {None, -1}:
        request = changed(request, seed=drawn(request.seed))
    lines = [line.strip() for line in arguments.lines.splitlines() if line.strip()]
    if len(lines) > setting.max_images:
        raise BadRequest("script_args[3]", f"{len(lines)} lines", f"at most {setting.max_images}")
    asks = []
    for line in lines:
        asks.append(Ask(request=apply(request, parse(line), at_start=arguments.position == "start")))
        if arguments.iterate:
            request = changed(request, seed=(request.seed or 0) + (request.batch_size or 1) * (request.n_iter or 1))
    outcomes = (yield asks) if asks else ()
    made = tuple(one for outcome in outcomes for one in outcome.made)
    return Result(pictures=made, cells=made, texts=tuple(one.text for one in made))


def parse(line: str) -> Mapping[str, object]:
    """The fields that a line sets. A1111: a line that cannot be read as a command line is a prompt."""
    if "--" not in line:
        return {"prompt": line}
    try:
        return dict(_tags(shlex.split(line)))
    except ValueError:
        return {"prompt": line}


def _tags(parts: list[str]) -> Iterator[tuple[str, object]]:
    """Raises ValueError for a tag that is unknown, has no word, or one of another kind."""
    place = 0
    while place < len(parts):
        tag = parts[place].removeprefix("--")
        place += 1
        if not parts[place - 1].startswith("--"):
            raise ValueError(f"must start with --: {tag}")
        end = place
        if tag in {"prompt", "negative_prompt"}:
            while end < len(parts) and not parts[end].startswith("--"):
                end += 1
            yield tag, " ".join(parts[place:end])
        elif tag in _TAGS and place < len(parts):
            end = place + 1
            yield tag, _TAGS[tag](parts[place])
        else:
            raise ValueError(f"unknown or without a value: {tag}")
        place = end


def apply(request: Generation, tags: Mapping[str, object], *, at_start: bool) -> Generation:
    """The request of one line."""
    fields: dict[str, Any] = {key: value for key, value in tags.items() if key not in _MEANINGLESS}
    for key in ("prompt", "negative_prompt"):
        own, common = fields.pop(key, None), getattr(request, key) or ""
        if own is not None:
            fields[key] = " ".join(filter(None, (own, common) if at_start else (common, own)))
    if "sampler_index" in fields:
        fields["sampler_name"] = _by_place(fields.pop("sampler_index"))
    if "styles" in fields:
        fields["styles"] = [fields["styles"]]
    model = fields.pop("sd_model", None)
    request = changed(request, **fields)
    return request if model is None else with_options(request, sd_model_checkpoint=model)


def _by_place(place: int) -> str:
    if not 0 <= place < len(SAMPLERS):
        raise BadRequest("sampler_index", place, f"from 0 to {len(SAMPLERS) - 1}")
    return SAMPLERS[place].name


SCRIPT = Script(title="Prompts from file or textbox", arguments=Arguments, plan=plan)
