"""Which checkpoints there are, by key, and which small networks beside them. Reads the folders through `nets` and loads
nothing. No torch here.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from darkroom.engine.small_networks import SmallNetworks
from darkroom.errors import UnknownName
from darkroom.jobs.spec import CheckpointInfo, Family, Traits
from darkroom.nets.catalog import Catalog, CheckpointFile, embedded
from darkroom.sampling.options import Training
from darkroom.settings import Settings

_FAMILIES: Mapping[str, Family] = {name: name for name in get_args(Family)}


class Catalogue:
    """The checkpoints that the settings' folders hold; the embedded model only where they hold none. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        cache = settings.data_dir / "hashes.json"
        self._catalog = Catalog([settings.checkpoint_dir], cache=cache, fallback=embedded())
        self._catalog.refresh()
        self.small = SmallNetworks(settings)

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """In the order that clients show them, with the hashes known by now."""
        return [_info(file) for file in self._catalog.checkpoints()]

    def get(self, key: str) -> CheckpointInfo:
        """One checkpoint. Raises UnknownName."""
        known = self.checkpoints()
        for info in known:
            if info.key == key:
                return info
        raise UnknownName("checkpoint", key, [info.key for info in known])

    def refresh(self) -> None:
        """Look at the folders again."""
        self._catalog.refresh()
        self.small.refresh()

    def sha256(self, filename: str, stopped: Callable[[], bool] = lambda: False) -> str:
        """A file's hash, computed here and now if it is not known. Raises BadModelFile, also on a stop."""
        return self._catalog.sha256(filename, stopped)

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
    )
    return Traits(family=family, conditioning=file.conditioning, training=training)
