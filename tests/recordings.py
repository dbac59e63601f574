"""The recordings of the original program, which lie beside the repository, and the models that they were made with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

RECORDED = Path(__file__).parents[2] / "shared/reference/a1111-1.10.1"
FOLDERS = ("Stable-diffusion", "Lora", "VAE", "embeddings")
NEEDED_BYTES = 3 * 2**30


class NoRoomError(Exception):
    """Too little disk or memory is left for the models."""


def models_folder(recordings: Path) -> Path:
    """The folder of the recordings' models: made once, bit for bit, by their own script, and kept in the user's cache.

    It has 2 GB. DARKROOM_REFERENCE_FILES names another folder to take or make. Raises NoRoomError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom" / recordings.name
    folder = Path(os.environ.get("DARKROOM_REFERENCE_FILES") or cache).resolve()
    if all((folder / name).is_dir() for name in FOLDERS):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < NEEDED_BYTES or available_memory() < NEEDED_BYTES:
        raise NoRoomError("less than 3 GB of disk or memory left for the recordings' models")
    draft = folder.with_name(f"{folder.name}-{os.getpid()}")  # what was not finished must not pass for the whole
    subprocess.run([sys.executable, recordings / "make_files.py", draft], check=True)
    draft.rename(folder)
    return folder


def available_memory() -> int:
    """Bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
