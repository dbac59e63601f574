"""Where a downloaded model goes, under which name. Looks at what it is, never at what it says it is."""

import errno
import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from darkroom.errors import BadModelFile
from darkroom.nets.architecture import Family, Shapes, identify
from darkroom.nets.folders import vae_names
from darkroom.nets.inspection import read_shapes
from darkroom.pull.errors import PullError
from darkroom.settings import Settings

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_BESIDE = (".yaml", ".json", ".txt", ".png")
"""What may lie beside a model."""

MAX_NAME_BYTES = 200


def folders(settings: Settings) -> dict[str, Path]:
    """The folders that have a name of their own."""
    return {
        "checkpoint": settings.checkpoint_dir,
        "lora": settings.adapter_folders[0],
        "vae": settings.vae_folders[-1],
        "embedding": settings.embedding_folders[0],
        "hypernetwork": settings.hypernetwork_folders[0],
        "upscaler": settings.upscaler_folders["ESRGAN"],
    }


def folder_for(path: Path, wanted: str, known: Mapping[str, Path]) -> Path:
    """The folder for a model that has arrived: by the name of its kind, by its place, or (wanted is empty) by what it
    holds. Raises PullError, BadModelFile.
    """
    if wanted in known:
        return known[wanted]
    if wanted:
        return Path(wanted)
    kind = kind_of(read_shapes(path))
    if kind is None:
        raise PullError(f"what it is cannot be told by its weights; say --to {', '.join(known)}, or a folder")
    return known[kind]


def kind_of(shapes: Shapes) -> str | None:
    """The kind of a model, as `folders` calls it."""
    held = identify(shapes)
    if vae_names(shapes) is not None:
        return "vae"
    kinds = {"a LoRA": "lora", "an autoencoder alone": "vae", "a textual-inversion embedding": "embedding"}
    if held in get_args(Family) or held.startswith("Stable Diffusion"):
        return "checkpoint"
    if any(name.startswith("string_to_param") for name in shapes) or {"clip_l", "clip_g"} <= shapes.keys():
        return "embedding"
    return kinds.get(held)


def safe_name(text: str) -> str:
    """A file name out of a text that somebody else wrote. Raises PullError if it is not one of a model."""
    name = re.sub(r"[^\w.+() -]", "_", re.split(r"[/\\]", text)[-1]).strip(" .")
    suffix = Path(name).suffix
    if suffix.lower() not in (*_SUFFIXES, *_BESIDE) or not Path(name).stem.strip(" ._"):
        allowed = ", ".join((*_SUFFIXES, *_BESIDE))
        raise PullError(f"{text[:80]!r} is no name of a model; say --name, which ends in {allowed}")
    stem = name.removesuffix(suffix).encode()[: MAX_NAME_BYTES - len(suffix)].decode(errors="ignore")
    return stem + suffix


def check_model(path: Path, name: str) -> None:
    """Look into what has arrived, without running any of it. Raises BadModelFile under the name it is to have."""
    if Path(name).suffix.lower() not in _SUFFIXES:
        return
    try:
        read_shapes(path)
    except BadModelFile as error:
        raise BadModelFile(str(error).replace(path.name, name, 1)) from error


def is_there(target: Path, sha256: str, *, overwrite: bool) -> bool:
    """Whether the very same file is in its place already. Raises PullError if another one is."""
    if not target.exists():
        return False
    if target.is_file() and _sha256(target) == sha256:
        return True
    if overwrite and target.is_file():
        return False
    raise PullError(f"{target} is there already and differs; say --name, or --overwrite")


def put(files: Iterable[tuple[Path, Path]]) -> None:
    """Move files to their places; each appears whole. Raises PullError."""
    try:
        for source, target in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                part = target.with_name(f"{target.name}.part")
                shutil.copyfile(source, part)
                part.replace(target)
                source.unlink()
    except OSError as error:
        raise PullError(f"cannot be put into its place: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
