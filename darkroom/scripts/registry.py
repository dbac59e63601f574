"""Which scripts there are, and finding one by the name that a request gives. Holds nothing that changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from darkroom.errors import DarkroomError
from darkroom.scripts import (
    alternative,
    loopback,
    outpainting_mk2,
    poor_outpainting,
    prompt_matrix,
    prompts_from_file,
    sd_upscale,
    xyz_plot,
)
from darkroom.scripts.always_on import PARTS
from darkroom.scripts.plan import AlwaysOn, Script, Tab
from darkroom.scripts.signature import Lists, describe

BUILT_IN = (
    alternative.SCRIPT,
    loopback.SCRIPT,
    outpainting_mk2.SCRIPT,
    poor_outpainting.SCRIPT,
    prompt_matrix.SCRIPT,
    prompts_from_file.SCRIPT,
    sd_upscale.SCRIPT,
    xyz_plot.SCRIPT,
)
"""In the order in which clients list them."""


class ScriptRefused(DarkroomError):
    """A script that does not exist, or is not what the request takes it for. A1111: clients read the wording."""

    http_status = 422
    code = "script_refused"

    def __init__(self, message: str, near: Sequence[str] = ()) -> None:
        self.hint = "known: " + ", ".join(near) if near else ""
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The scripts of one server."""

    scripts: tuple[Script, ...] = BUILT_IN
    parts: tuple[AlwaysOn, ...] = PARTS

    def get(self, name: str, tab: Tab) -> Script:
        """The script of this title, in any letter case. Raises ScriptRefused."""
        known = [script for script in self.scripts if tab in script.tabs]
        found = next((script for script in known if script.title.lower() == name.lower()), None)
        if found is None:
            raise ScriptRefused(f"Script '{name[:80]}' not found", _near(name, [script.title for script in known]))
        return found

    def find_part(self, name: str, tab: Tab) -> AlwaysOn | None:
        """The always-on part of this title, in any letter case. Raises ScriptRefused for what a request must name."""
        lower = name.lower()
        if any(script.title.lower() == lower for script in self.scripts if tab in script.tabs):
            raise ScriptRefused("Cannot have a selectable script in the always on scripts params")
        return next((part for part in self.parts if part.title.lower() == lower and tab in part.tabs), None)

    def names(self, tab: Tab) -> list[str]:
        """What `/scripts` lists. A1111: in lower case, with one exception."""
        chosen = [script.title.lower() for script in self.scripts if tab in script.tabs]
        return chosen + [part.listed_as for part in self.parts if tab in part.tabs and part.listed_as]

    def describe(self, tab: Tab, lists: Lists) -> list[dict[str, object]]:
        """What `/script-info` lists of one tab."""
        entries: list[tuple[str, bool, type[object]]] = [
            (script.title, False, script.arguments) for script in self.scripts if tab in script.tabs
        ]
        entries += [(part.title, True, part.arguments) for part in self.parts if tab in part.tabs and part.described]
        return [
            {
                "name": title.lower(),
                "is_alwayson": always_on,
                "is_img2img": tab == "img2img",
                "args": describe(arguments, lists),
            }
            for title, always_on, arguments in entries
        ]


def _near(name: str, known: Sequence[str]) -> list[str]:
    by_lower = {title.lower(): title for title in known}
    close = get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.4)
    return [by_lower[lower] for lower in close] or list(known)
