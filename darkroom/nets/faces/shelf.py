"""Which face restorers there are, and where their files lie. Opens no file; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from darkroom.nets.catalog import walk

Restorer = Literal["CodeFormer", "GFPGAN"]
SUFFIXES = (".pth", ".pt", ".safetensors")

PUBLISHED: Mapping[Restorer, str] = MappingProxyType(
    {"CodeFormer": "codeformer-v0.1.0.pth", "GFPGAN": "GFPGANv1.4.pth"}
)
"""The file that everybody has."""

_WORDS: Mapping[Restorer, tuple[str, ...]] = MappingProxyType(
    {"CodeFormer": ("codeformer", ""), "GFPGAN": ("gfpgan", "restoreformer")}
)
"""What a file's name holds, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorerFile:
    """A face restorer by its name. `filename` is None where there is no file; `wanted` says where it should be."""

    name: Restorer
    filename: str | None
    wanted: str


def restorers(folders: Mapping[Restorer, Path]) -> tuple[RestorerFile, ...]:
    """The face restorers by name, each with the best file of its folder.

    A RestoreFormer, which is trained for the same faces, stands in for GFPGAN where it is the one that is there.
    """
    return tuple(_find(name, folders[name]) for name in PUBLISHED)


def _find(name: Restorer, folder: Path) -> RestorerFile:
    files = list(walk(folder.absolute(), lambda path: path.suffix.lower() in SUFFIXES and path.is_file()))
    fitting = (path for word in _WORDS[name] for path in files if word in path.name.lower())
    found = next(fitting, None)
    return RestorerFile(name=name, filename=str(found) if found else None, wanted=str(folder / PUBLISHED[name]))
