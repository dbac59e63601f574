"""`/sdapi/v1/scripts` and `/script-info`, and which script a request names.

Knows names and arguments. Running a script is `script_runs`' business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from darkroom.api.context import Context, Shared
from darkroom.api.models import Generation, Img2Img
from darkroom.api.upscaling import upscaler_names
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.prompt.styles import load
from darkroom.sampling.names import SAMPLERS, SCHEDULERS
from darkroom.scripts.plan import Script, Tab
from darkroom.scripts.registry import ScriptRefused
from darkroom.scripts.signature import Lists, read

router = APIRouter(prefix="/sdapi/v1", tags=["lists"])

TABS: tuple[Tab, ...] = ("txt2img", "img2img")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The script that a request names, with its arguments read."""

    script: Script
    arguments: Any
    lists: Lists


@router.get("/scripts", operation_id="get_scripts_list_sdapi_v1_scripts_get")
def get_scripts(context: Shared) -> dict[str, list[str]]:
    """The scripts that a request may name, and the always-on ones that take arguments."""
    return {tab: context.scripts.names(tab) for tab in TABS}


@router.get("/script-info", operation_id="get_script_info_sdapi_v1_script_info_get")
def get_script_info(context: Shared) -> list[dict[str, Any]]:
    """What every script takes, in the order of `script_args`."""
    return [entry for tab in TABS for entry in context.scripts.describe(tab, lists_of(context, tab))]


def lists_of(context: Context, tab: Tab) -> Lists:
    """The names that arguments may be chosen from here."""
    return Lists(
        tab=tab,
        checkpoints=[info.title for info in context.engine.checkpoints()],
        samplers=[sampler.name for sampler in SAMPLERS],
        schedulers=[scheduler.label for scheduler in SCHEDULERS],
        upscalers=upscaler_names(context.engine, context.options.snapshot()),
        vaes=[info.name for info in context.engine.autoencoders()],
        styles=[style.name for style in load(context.settings.style_files)],
        latent_modes=tuple(LATENT_MODES),
    )


def choose_script(wire: Generation, context: Context) -> Chosen | None:
    """The script of a request. Raises ScriptRefused, BadRequest."""
    name = getattr(wire, "script_name", None)
    if not name or name == "None":
        return None
    tab = tab_of(wire)
    script = context.scripts.get(name, tab)
    lists = lists_of(context, tab)
    arguments = read(script.arguments, getattr(wire, "script_args", []), lists, field="script_args")
    return Chosen(script=script, arguments=arguments, lists=lists)


def check_always_on(wire: Generation, context: Context) -> Sequence[str]:
    """Warnings about always-on scripts that are not here. Raises ScriptRefused.

    A1111: refuses every unknown one. Clients name some in every request without arguments; that asks for nothing.
    """
    warnings: list[str] = []
    given: Mapping[str, object] = getattr(wire, "alwayson_scripts", {})
    for title, script in given.items():
        if context.scripts.find_part(title, tab_of(wire)) is None:
            if isinstance(script, dict) and script.get("args"):
                raise ScriptRefused(f"Script '{title[:80]}' not found", [part.title for part in context.scripts.parts])
            warnings.append(f"alwayson_scripts.{title[:80]} is unknown")
    return warnings


def tab_of(wire: Generation) -> Tab:
    """Which of the two generators a request is for."""
    return "img2img" if isinstance(wire, Img2Img) else "txt2img"
