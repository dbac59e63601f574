"""Which options the operator lets nobody change: all, those of some sections, or some by name. Knows no request.

Sections have the names that A1111's command line flags know them by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from darkroom.errors import Frozen
from darkroom.options.table import SECTIONS, TABLE
from darkroom.options.values import OptionValues

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "Saving pictures": "saving-images",
        "Folders of saved pictures": "saving-paths",
        "Folders inside the folders": "saving-to-dirs",
        "Upscaling": "upscaling",
        "Faces": "face-restoration",
        "System": "system",
        "Profiler": "profiler",
        "API": "API",
        "Training": "training",
        "Stable Diffusion": "sd",
        "Stable Diffusion XL": "sdxl",
        "Stable Diffusion 3": "sd3",
        "VAE": "vae",
        "img2img": "img2img",
        "Optimizations": "optimizations",
        "Compatibility": "compatibility",
        "Interrogation": "interrogate",
        "Extra networks": "extra_networks",
        "Editing prompts": "ui_prompt_editing",
        "Gallery": "ui_gallery",
        "Other layouts": "ui_alternatives",
        "Web page": "ui",
        "Generation texts": "infotext",
        "Live previews": "ui",
        "Samplers": "sampler-params",
        "Postprocessing": "postprocessing",
        "The server's own": "hidden",
        "Adapters": "extra_networks",
        "Canvas": "canvas_hotkey",
        "Options beside prompts": "settings_in_ui",
        "Comments": "sd",
        "More upscalers": "upscaling",
        "Hypertile": "hypertile",
        "Darkroom": "darkroom",
    }
)
"""What A1111 calls each section of the table."""

SECTION_NAMES = tuple(dict.fromkeys(_NAMES.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """What is frozen."""

    everything: bool = False
    sections: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def check(self, before: OptionValues, after: OptionValues) -> None:
        """Let the options become what they are afterwards, or not. Raises Frozen."""
        for name in TABLE:
            reason = self.reason(name) if after[name] != before[name] else None
            if reason:
                raise Frozen(reason)

    def check_saving(self) -> None:
        """Let the options be saved as they are, or not. Raises Frozen."""
        if self.everything:
            raise Frozen("saving settings is disabled")

    def reason(self, name: str) -> str | None:
        """Why an option may not change, in A1111's words; None where it may."""
        if self.everything:
            return "changing settings is disabled"
        if name in self.names:
            return f"not possible to set {name!r} because this setting is frozen with --freeze-specific-settings"
        section, title = next((_NAMES[title], title) for title, options in SECTIONS.items() if name in options)
        if section in self.sections:
            return (
                f"not possible to set {name!r} because settings in section {title!r} ({section}) are frozen with"
                " --freeze-settings-in-sections"
            )
        return None


def read_sections(text: str) -> frozenset[str]:
    """Names of sections, separated by commas. Raises ValueError."""
    return _known(text, SECTION_NAMES)


def read_names(text: str) -> frozenset[str]:
    """Names of options, separated by commas. Raises ValueError."""
    return _known(text, tuple(TABLE))


def _known(text: str, known: Sequence[str]) -> frozenset[str]:
    """What is protected under a name that is misspelt is not protected, so such a name is refused."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise ValueError(f"{name!r} is not among {', '.join(get_close_matches(name, known) or known[:40])}")
    return frozenset(found)
