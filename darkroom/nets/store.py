"""The loaded models of one device, the least recently used dropped first. Owned by the device thread alone."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from darkroom.errors import BadModelFile
from darkroom.nets import sd1
from darkroom.nets.adapters import AdapterFile, read_adapter
from darkroom.nets.architecture import identify
from darkroom.nets.checkpoint import Checkpoint, open_checkpoint
from darkroom.nets.config import ModelConfig, read_config
from darkroom.nets.hypernetworks import Hypernetwork, read_hypernetwork
from darkroom.nets.network import Network
from darkroom.nets.vae import Vae, load_vae

KEPT_VAES = 4
KEPT_HYPERNETWORKS = 8
ADAPTER_BYTES = 1 << 30
"""Bytes of adapters that are kept as read, beside those in use."""

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

    __slots__ = ("_adapters", "_budget_bytes", "_device", "_dtype", "_hypernetworks", "_networks", "_vaes")

    def __init__(self, device: torch.device, dtype: torch.dtype, budget_bytes: int) -> None:
        self._device = device
        self._dtype = dtype
        self._budget_bytes = budget_bytes
        self._networks: OrderedDict[str, tuple[Version, Network]] = OrderedDict()
        self._vaes: OrderedDict[tuple[str, float], tuple[Version, Vae]] = OrderedDict()
        self._adapters: OrderedDict[str, tuple[Version, AdapterFile]] = OrderedDict()
        self._hypernetworks: OrderedDict[str, tuple[Version, Hypernetwork]] = OrderedDict()

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

    def get_vae(self, filename: str, scale: float) -> Vae:
        """An autoencoder that has a file of its own, loaded if needed. Raises BadModelFile."""
        version = (_version(filename), (0, 0))
        known, vae = self._vaes.pop((filename, scale), (None, None))
        if vae is None or known != version:
            vae = load_vae(Path(filename), scale, self._device, self._dtype)
        self._vaes[filename, scale] = (version, vae)
        while len(self._vaes) > KEPT_VAES:
            self._vaes.popitem(last=False)
        return vae

    def get_adapter(self, filename: str) -> tuple[Version, AdapterFile]:
        """An adapter's tensors and the state of the file that they are of, read if needed. Raises BadModelFile."""
        version = (_version(filename), (0, 0))
        known, file = self._adapters.pop(filename, (None, None))
        if file is None or known != version:
            file = read_adapter(Path(filename))
        self._adapters[filename] = (version, file)
        while len(self._adapters) > 1 and sum(file.nbytes for _, file in self._adapters.values()) > ADAPTER_BYTES:
            self._adapters.popitem(last=False)
        return version, file

    def get_hypernetwork(self, filename: str) -> Hypernetwork:
        """A hypernetwork, read if needed. Raises BadModelFile."""
        version = (_version(filename), (0, 0))
        known, found = self._hypernetworks.pop(filename, (None, None))
        if found is None or known != version:
            found = read_hypernetwork(Path(filename), self._device, self._dtype)
        self._hypernetworks[filename] = (version, found)
        while len(self._hypernetworks) > KEPT_HYPERNETWORKS:
            self._hypernetworks.popitem(last=False)
        return found

    def clear(self) -> None:
        """Drop everything."""
        self._networks.clear()
        self._vaes.clear()
        self._adapters.clear()
        self._hypernetworks.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights held."""
        networks = sum(network.nbytes for _, network in self._networks.values())
        return networks + sum(vae.nbytes for _, vae in self._vaes.values())

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
