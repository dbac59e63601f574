"""Opens a model whatever it is kept as: a safetensors file, a pickled one, or a folder in diffusers' layout.

Told by what is there and never by its name. Nothing pickled is read in this process, see `conversion`.
"""

import tempfile
from pathlib import Path

from darkroom.errors import BadModelFile
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.containers import container_of
from darkroom.nets.conversion import Copies, convert
from darkroom.nets.folders import is_folder, vae_names
from darkroom.nets.tensors import FolderFiles, Renamed, SafeFile, Tensors


def open_checkpoint(path: Path, copies: Copies | None = None) -> Checkpoint:
    """Open a model. Of a pickled one a safetensors copy is opened, which `copies` keep. Raises BadModelFile."""
    return Checkpoint(path, open_tensors(path, copies))


def open_autoencoder(path: Path, copies: Copies | None = None) -> Checkpoint:
    """Open an autoencoder that has a file of its own, in its first layout or in diffusers'. Raises BadModelFile."""
    tensors = open_tensors(path, copies)
    names = vae_names(tensors.shapes)
    try:
        return Checkpoint(path, Renamed(tensors, names) if names else tensors)
    except (KeyError, ValueError) as error:
        raise BadModelFile(f"{path.name}: not an autoencoder: {error}") from error


def open_tensors(path: Path, copies: Copies | None = None) -> Tensors:
    """Open a file's or a folder's tensors. Raises BadModelFile."""
    if path.is_dir():
        if not is_folder(path):
            raise BadModelFile(f"{path.name}: is a folder without a model in diffusers' layout")
        return FolderFiles(path)
    if container_of(path) == "safetensors":
        return SafeFile(path)
    if copies is not None:
        return SafeFile(copies.get(path), path.name)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as target:
        convert(path, target, 2 * path.stat().st_size + (1 << 20))
        return SafeFile(Path(target.name), path.name)  # what is mapped stays when its name is gone
