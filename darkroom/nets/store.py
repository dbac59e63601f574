"""The loaded models of one device, the least recently used dropped first. Owned by the device thread alone."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from darkroom.errors import BadModelFile
from darkroom.nets import sd1
from darkroom.nets.checkpoint import Checkpoint, identify, open_checkpoint
from darkroom.nets.config import ModelConfig, read_config
from darkroom.nets.network import Network

Version = tuple[tuple[int, int], tuple[int, int]]
Build = Callable[[Checkpoint, ModelConfig, torch.device, torch.dtype], Network]

# Another architecture is one more module with a `build` and its line here.
BUILDERS: Mapping[str, Build] = MappingProxyType({"sd1": sd1.build})


def load(filename: str | Path, config: str | Path | None, device: torch.device, dtype: torch.dtype) -> Network:
    """Load one checkpoint with its YAML (or none). Raises BadModelFile, which says what is wrong with which file."""
    settings = read_config(Path(config) if config else None)
    with open_checkpoint(Path(filename)) as checkpoint:
        kind = identify(checkpoint.shapes)
        build = BUILDERS.get(kind)
        if build is None:
            raise BadModelFile(f"{checkpoint.path.name}: holds {kind}, which is not supported; Stable Diffusion 1.x is")
        return build(checkpoint, settings, device, dtype)


class Store:
    """Keeps loaded networks while their weights fit into `budget_bytes`; the one asked for last always stays."""

    __slots__ = ("_budget_bytes", "_device", "_dtype", "_networks")

    def __init__(self, device: torch.device, dtype: torch.dtype, budget_bytes: int) -> None:
        self._device = device
        self._dtype = dtype
        self._budget_bytes = budget_bytes
        self._networks: OrderedDict[str, tuple[Version, Network]] = OrderedDict()

    def get(self, filename: str, config: str | None) -> Network:
        """The network of a checkpoint file, loaded if needed (again if the file changed). Raises BadModelFile."""
        version = (_version(filename), _version(config))
        known, network = self._networks.pop(filename, (None, None))
        if network is None or known != version:
            network = None  # the old one must not be held while the new one is loaded
            self._make_room(version[0][0])
            network = load(filename, config, self._device, self._dtype)
        self._networks[filename] = (version, network)
        return network

    def clear(self) -> None:
        """Drop every network."""
        self._networks.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights held."""
        return sum(network.nbytes for _, network in self._networks.values())

    def _make_room(self, coming_bytes: int) -> None:
        """Drop what is least recently used until the file's size, taken for the network's, fits in."""
        while self._networks and self.nbytes + coming_bytes > self._budget_bytes:
            self._networks.popitem(last=False)


def _version(filename: str | None) -> tuple[int, int]:
    """Size and time of a file, to notice that it was replaced; zeros if there is none."""
    try:
        stat = Path(filename).stat() if filename else None
    except OSError:
        return 0, 0
    return (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
