"""Which checkpoints there are, by key, and which small networks beside them. Reads the folders through `nets` and loads
nothing. No torch here.
"""

from collections.abc import Sequence
from dataclasses import asdict

from darkroom.engine.small_networks import SmallNetworks
from darkroom.errors import UnknownName
from darkroom.jobs.spec import CheckpointInfo
from darkroom.nets.catalog import Catalog, CheckpointFile, embedded
from darkroom.settings import Settings


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

    def close(self) -> None:
        """Stop hashing."""
        self._catalog.close()


def _info(file: CheckpointFile) -> CheckpointInfo:
    return CheckpointInfo(key=file.path, **asdict(file))
