"""Which checkpoints there are, by key, and which small networks beside them. Reads the folders through `nets` and loads
nothing. No torch here.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from darkroom.engine.small_networks import SmallNetworks
from darkroom.errors import BadModelFile, UnknownName
from darkroom.jobs.spec import CheckpointInfo, Family, Traits
from darkroom.nets.catalog import Catalog, CheckpointFile, embedded, identity
from darkroom.nets.containers import container_of
from darkroom.nets.conversion import Copies
from darkroom.sampling.options import Flow, Training
from darkroom.settings import Settings

_FAMILIES: Mapping[str, Family] = {name: name for name in get_args(Family)}


class Catalogue:
    """The checkpoints that the settings' folders hold; the embedded model only where they hold none. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._hashing = not settings.no_hashing
        self._hidden = True
        self._copied: set[str] = set()
        self.copies = Copies(settings.converted_dir, int(settings.converted_gb * 1e9), self._digest)
        self._catalog = Catalog(
            settings.checkpoint_folders,
            first=settings.ckpt,
            fallback=embedded(),
            cache=settings.data_dir / "hashes.json",
            copies=self.copies,
            hashing=self._hashing,
        )
        self._catalog.refresh()
        self.small = SmallNetworks(settings, self.copies)

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """In the order that clients show them, with the hashes known by now."""
        return [_info(file) for file in self._catalog.checkpoints()]

    def get(self, key: str) -> CheckpointInfo:
        """One checkpoint. Raises UnknownName."""
        known = self._catalog.checkpoints()
        for file in known:
            if file.path == key:
                return _info(file)
        raise UnknownName("checkpoint", key, [file.path for file in known])

    def find_pickled(self, key: str) -> Path | None:
        """The file of a checkpoint that has to be turned into safetensors before it can be loaded, if it has to."""
        path = next((Path(file.filename) for file in self._catalog.checkpoints() if file.path == key), None)
        try:
            known = path is None or path.is_dir() or identity(path) in self._copied
            return None if path is None or known or container_of(path) == "safetensors" else path
        except (BadModelFile, OSError):
            return None  # loading it will say what is wrong with it, to whoever asks for it

    def copy(self, path: Path) -> None:
        """Turn a pickled checkpoint into safetensors, if that was not done before. Raises BadModelFile."""
        self.copies.get(path)
        try:
            self._copied.add(identity(path))
        except OSError:
            return  # it is gone since

    def refresh(self, *, hidden: bool | None = None) -> None:
        """Look at the folders again, in those whose names begin with a dot or not; None: as last time."""
        self._hidden = self._hidden if hidden is None else hidden
        self._catalog.refresh(hidden=self._hidden)
        self.small.refresh(hidden=self._hidden)

    def sha256(self, filename: str, stopped: Callable[[], bool] = lambda: False) -> str:
        """A file's hash, computed here and now if it is not known. Raises BadModelFile, also on a stop."""
        return self._catalog.sha256(filename, stopped)

    def _digest(self, path: Path) -> str:
        """What names a file's content: its hash or, where none are computed, a hash of its place, size and time."""
        if self._hashing:
            return self.sha256(str(path))
        return hashlib.sha256(identity(path).encode()).hexdigest()

    def remember(self, path: Path, sha256: str) -> None:
        """Take over the hash of a checkpoint that was just written. Raises OSError if it is gone."""
        self._catalog.remember(path, sha256)

    def close(self) -> None:
        """Stop hashing."""
        self._catalog.close()


def _info(file: CheckpointFile) -> CheckpointInfo:
    return CheckpointInfo(
        key=file.path,
        filename=file.filename,
        path=file.path,
        sha256=file.sha256,
        old_hash=file.old_hash,
        config=file.config,
        native_size=file.settings.native_size,
        largest_size=file.settings.largest_size,
        traits=_traits(file),
        text_width=file.text_width,
        preferred_vae=file.preferred_vae,
    )


def _traits(file: CheckpointFile) -> Traits:
    """A file that cannot be used is taken for Stable Diffusion 1.x until somebody asks for it and hears why."""
    family = _FAMILIES.get(file.architecture, "sd1")
    training = Training(
        start=file.settings.linear_start,
        end=file.settings.linear_end,
        timesteps=file.settings.timesteps,
        sdxl=family in ("sdxl", "refiner"),
        flow=_flow(family, file),
    )
    return Traits(
        family=family, conditioning=file.conditioning, training=training, latent_channels=16 if training.flow else 4
    )


def _flow(family: Family, file: CheckpointFile) -> Flow | None:
    """The flow matching that a family was trained with. Of FLUX.1, only what is guided has its times shifted."""
    match family:
        case "sd3":
            return Flow(shift=3.0)
        case "flux":
            return Flow(shift=None if file.guided else 1.0)
        case _:
            return None
