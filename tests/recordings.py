"""The recordings of the original program, which lie beside the repository, and the models that they were made with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[2] / "shared/reference/a1111-1.10.1"
RECORDED_LARGE = RECORDED.with_name("a1111-1.10.1-sdxl-sd2")
"""The same of Stable Diffusion 2 and XL."""

VARIABLES = {RECORDED.name: "DARKROOM_REFERENCE_FILES", RECORDED_LARGE.name: "DARKROOM_REFERENCE_FILES_2"}
FOLDERS = ("Stable-diffusion", "Lora", "embeddings")
NEEDED_BYTES = 3 * 2**30


class NoRoomError(Exception):
    """Too little disk or memory is left for the models."""


def models_folder(recordings: Path) -> Path:
    """The folder of the recordings' models: made once, bit for bit, by their own script, and kept in the user's cache.

    It has 2 GB. DARKROOM_REFERENCE_FILES names another folder to take or make, DARKROOM_REFERENCE_FILES_2 that of the
    larger families. Raises NoRoomError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom" / recordings.name
    folder = Path(os.environ.get(VARIABLES.get(recordings.name, "")) or cache).resolve()
    if all((folder / name).is_dir() for name in FOLDERS):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < NEEDED_BYTES or available_memory() < NEEDED_BYTES:
        raise NoRoomError("less than 3 GB of disk or memory left for the recordings' models")
    draft = folder.with_name(f"{folder.name}-{os.getpid()}")  # what was not finished must not pass for the whole
    subprocess.run([sys.executable, recordings / "make_files.py", draft], check=True)
    draft.rename(folder)
    return folder


def in_order(cases: Path) -> list[str]:
    """The names of all cases, each behind the request that selects the checkpoint which its answer names.

    The folder's own order is not everywhere that in which they were recorded.
    """
    groups: dict[str, list[str]] = {"": []}
    selected = ""
    strays: list[tuple[str, str]] = []
    for name in (cases / "order.txt").read_text().split():
        asked = _read(cases / f"{name}.json")["body"]
        if isinstance(asked, dict) and "sd_model_checkpoint" in asked:
            selected = asked["sd_model_checkpoint"]
            groups[selected] = []
        used = _used_checkpoint(asked, _read(cases / f"{name}.response.json")["body"])
        if used in (None, selected) or used not in groups:
            groups[selected].append(name)
        else:
            strays.append((used, name))
    for used, name in strays:
        groups[used].append(name)
    return [name for names in groups.values() for name in names]


def _used_checkpoint(asked: Any, answer: Any) -> str | None:
    """The checkpoint that an answer names, if its request leaves the choice to those before it."""
    if not isinstance(answer, dict) or not isinstance(answer.get("info"), str) or not isinstance(asked, dict):
        return None
    if "sd_model_checkpoint" in (asked.get("override_settings") or {}):
        return None
    try:
        name: str | None = json.loads(answer["info"])["sd_model_name"]
    except (ValueError, KeyError, TypeError):
        return None
    return name


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def available_memory() -> int:
    """Bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
