"""The loaded models of one device, under one budget of bytes. Owned by the device thread alone.

A file that cannot be used costs nothing that is loaded: at first sight a checkpoint is laid out without its weights,
which finds what is wrong with it and tells how much memory it will take, before anything is dropped for it.
"""

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch

from darkroom.errors import BadModelFile, MissingPart, NoRoom
from darkroom.nets import flux, sd1, sd2, sd3, sdxl
from darkroom.nets.adapters import AdapterFile, read_adapter
from darkroom.nets.architecture import identify
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.config import ModelConfig, read_config
from darkroom.nets.conversion import Copies
from darkroom.nets.folders import state_of
from darkroom.nets.hypernetworks import Hypernetwork, read_hypernetwork
from darkroom.nets.network import Network
from darkroom.nets.opening import open_checkpoint
from darkroom.nets.placement import HOME, Turns
from darkroom.nets.precision import text_dtype
from darkroom.nets.residents import Residents, Sized
from darkroom.nets.vae import Vae, load_vae

log = logging.getLogger(__name__)

READING_S = 0.2
BYTES_PER_S = 1e9
"""What loading is taken to cost before the first one was measured: a fixed part, and a speed."""

REMEMBERED_FAULTS = 64

T = TypeVar("T", bound=Sized)

META = torch.device("meta")

Build = Callable[[Checkpoint, ModelConfig, torch.device, torch.dtype], Network]

# Another architecture is one more module with a `build` and its line here.
BUILDERS: Mapping[str, Build] = MappingProxyType(
    {"sd1": sd1.build, "sd2": sd2.build, "sdxl": sdxl.build, "refiner": sdxl.build_refiner}
)

Assemble = Callable[[Checkpoint, ModelConfig, torch.device, torch.dtype, Sequence[Path]], Network]

# Those whose networks may lie in files of their own.
ASSEMBLERS: Mapping[str, Assemble] = MappingProxyType({"sd3": sd3.build, "flux": flux.build})


def load(
    filename: str | Path,
    config: str | Path | None,
    device: torch.device,
    dtype: torch.dtype,
    copies: Copies | None = None,
    parts: Sequence[Path] = (),
    *,
    vae_dtype: torch.dtype | None = None,
    eight_bits: bool = False,
) -> Network:
    """Load one checkpoint with its YAML (or none). Raises BadModelFile, which says what is wrong with which file.

    `copies` keep the safetensors copies of pickled ones; `parts` are folders where networks may lie that belong to it.
    `vae_dtype` is the autoencoder's format where it is not `dtype`; with `eight_bits` the other networks' weights are
    held in eight bits. Raises MissingPart if a network is nowhere.
    """
    with open_checkpoint(Path(filename), copies) as checkpoint:
        checkpoint.vae_dtype, checkpoint.eight_bits = vae_dtype, eight_bits
        kind = identify(checkpoint.shapes)
        settings = read_config(Path(config) if config else None, kind)
        if kind in ASSEMBLERS:
            network = ASSEMBLERS[kind](checkpoint, settings, device, dtype, parts)
        elif kind in BUILDERS:
            network = BUILDERS[kind](checkpoint, settings, device, dtype)
        else:
            raise BadModelFile(f"{checkpoint.path.name}: holds {kind}, which is not supported")
    network.family, network.dtype = kind, dtype
    return network


@dataclass(frozen=True, slots=True, eq=False)
class _Adapter:
    """An adapter as read, and the state of its file then."""

    state: Hashable
    file: AdapterFile

    @property
    def nbytes(self) -> int:
        return self.file.nbytes


class Store:
    """Keeps what it has loaded while that fits into `budget_bytes`, the least recently used dropped first.

    The network asked for last always stays, and all that was asked for after it. Autoencoders, adapters and other small
    networks count like checkpoints, and so does what a network holds twice because of the adapters in it.
    """

    __slots__ = (
        "_copies", "_device", "_dtype", "_faults", "_parts", "_residents", "_seconds", "_sizes", "_speed", "_turns",
        "_vae_dtype",
    )  # fmt: skip

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        budget_bytes: int,
        *,
        vae_dtype: torch.dtype | None = None,
        copies: Copies | None = None,
        parts: Sequence[Path] = (),
        turns: Turns | None = None,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """`vae_dtype` is the autoencoders' format where it is not `dtype`. `copies` keep what pickled checkpoints are
        turned into; `parts` are the folders of networks that checkpoints lack. With `turns` networks lie in main
        memory. `released` is called after something was dropped.
        """
        self._device = device
        self._dtype = dtype
        self._vae_dtype = vae_dtype or dtype
        self._turns = turns
        self._copies = copies
        self._parts = tuple(parts)
        self._residents = Residents(budget_bytes, released=released)
        self._faults: dict[Hashable, tuple[Hashable, str]] = {}
        self._sizes: dict[Hashable, tuple[Hashable, int]] = {}
        self._seconds: dict[Hashable, float] = {}
        self._speed = BYTES_PER_S

    def get(self, filename: str, config: str | None, *, eight_bits: bool = False) -> Network:
        """The network of a checkpoint file, loaded if needed (again if the file changed). Raises BadModelFile.

        With `eight_bits` its weights are held in eight bits; that is another network to the store.
        """
        key = "network", filename, eight_bits
        state = _version(filename), _version(config)
        self._residents.begin_turn()
        network: Network | None = self._residents.find(key, state)
        if network is None:
            self._make_room(key, state, lambda: self._load(filename, config, META, eight_bits).nbytes)
            device = HOME if self._turns else self._device
            network = self._read(key, filename, state, lambda: self._load(filename, config, device, eight_bits))
            if state != (_version(filename), _version(config)):
                self._residents.drop(key)
                raise BadModelFile(f"{Path(filename).name}: changed while it was read")
        return network

    def _load(self, filename: str, config: str | None, device: torch.device, eight_bits: bool) -> Network:
        network = load(
            filename,
            config,
            device,
            self._dtype,
            self._copies,
            self._parts,
            vae_dtype=self._vae_dtype,
            eight_bits=eight_bits,
        )
        if self._turns and device != META:
            network.place(self._turns, self._turns.tier_of(network.family), text_dtype(self._dtype, self._turns.device))
        return network

    def find(self, filename: str, *, eight_bits: bool = False) -> Network | None:
        """The network of a checkpoint file if it is loaded, also if the file has changed since."""
        self._residents.begin_turn()
        network: Network | None = self._residents.find(("network", filename, eight_bits))
        return network

    def load_s(self, filename: str, *, eight_bits: bool = False) -> float:
        """About how many seconds `get` would take for a checkpoint: what it took last time, or by the file's size; 0 if
        it is loaded.
        """
        key = "network", filename, eight_bits
        if self._residents.holds(key):
            return 0.0
        return self._seconds.get(key) or READING_S + _version(filename)[0] / self._speed

    def get_vae(self, filename: str, scale: float, shift: float = 0.0, *, afresh: bool = True) -> Vae:
        """An autoencoder that has a file of its own, loaded if needed. Raises BadModelFile."""
        return self.keep(
            ("autoencoder", filename, scale, shift),
            filename,
            lambda: load_vae(Path(filename), scale, self._device, self._vae_dtype, shift, self._copies),
            afresh=afresh,
        )

    def get_adapter(self, filename: str, *, afresh: bool = True) -> tuple[Hashable, AdapterFile]:
        """An adapter's tensors and the state of the file that they are of, read if needed. Raises BadModelFile."""
        state = _version(filename)
        read = self.keep(
            ("adapter", filename), filename, lambda: _Adapter(state, read_adapter(Path(filename))), afresh=afresh
        )
        return read.state, read.file

    def get_hypernetwork(self, filename: str, *, afresh: bool = True) -> Hypernetwork:
        """A hypernetwork, read if needed. Raises BadModelFile."""
        return self.keep(
            ("hypernetwork", filename),
            filename,
            lambda: read_hypernetwork(Path(filename), self._device, self._dtype),
            afresh=afresh,
        )

    def keep(self, key: Hashable, filename: str, read: Callable[[], T], *, afresh: bool = True) -> T:
        """What `read` makes of a file, read if needed and kept under the key. Raises what `read` raises.

        With `afresh` it is read again if the file changed.
        """
        state = _version(filename)
        thing: T | None = self._residents.find(key, state if afresh else None)
        if thing is None:
            self._make_room(key, state, lambda: state[0])
            thing = self._read(key, filename, state, read)
        return thing

    def drop(self, key: Hashable) -> None:
        """Let go of what is kept under a key, if anything is."""
        self._residents.drop(key)

    def settle(self) -> None:
        """Drop what no longer fits because something in use has grown."""
        self._residents.make_room(0)

    def drop_unused(self, for_s: float) -> float | None:
        """Drop what nobody has asked for in so many seconds. In how many the next may go; None if nothing is held."""
        return self._residents.drop_unused(for_s)

    def clear(self) -> None:
        """Drop everything."""
        self._residents.clear()
        self._faults.clear()

    @property
    def dtype(self) -> torch.dtype:
        """The format that denoisers compute in."""
        return self._dtype

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return self._residents.nbytes

    def _make_room(self, key: Hashable, state: Hashable, measure: Callable[[], int]) -> None:
        """Drop what must go for a file that `measure` finds fault with or tells the bytes of. Raises BadModelFile."""
        fault_state, fault = self._faults.get(key, (None, ""))
        if fault_state == state:
            raise BadModelFile(fault)
        size_state, size = self._sizes.get(key, (None, 0))
        if size_state != state:
            try:
                size = measure()
            except BadModelFile as error:
                self._remember_fault(key, state, error)
                raise
            self._sizes[key] = state, size
        self._residents.drop(key)
        self._residents.make_room(size)

    def _read(self, key: Hashable, filename: str, state: Hashable, read: Callable[[], T]) -> T:
        """Read what there is room for, and keep it."""
        began = time.perf_counter()
        try:
            thing = read()
        except BadModelFile as error:
            self._remember_fault(key, state, error)
            raise
        seconds = time.perf_counter() - began
        self._residents.add(key, state, thing)
        self._seconds[key] = seconds
        self._sizes[key] = state, thing.nbytes
        if isinstance(thing, Network):
            self._speed = thing.nbytes / seconds
            log.info("%s: %.0f MB loaded in %.2f s", Path(filename).name, thing.nbytes / 1e6, seconds)
        return thing

    def _remember_fault(self, key: Hashable, state: Hashable, error: BadModelFile) -> None:
        """A file that cannot be used is not read again before it changes; what it lacks may come any time."""
        if isinstance(error, MissingPart | NoRoom):
            return
        while len(self._faults) >= REMEMBERED_FAULTS:
            del self._faults[next(iter(self._faults))]
        self._faults[key] = state, str(error)


def _version(filename: str | None) -> tuple[int, int]:
    """Size and time of a file or a folder's files, to notice that it was replaced; zeros if there is none."""
    try:
        return state_of(Path(filename)) if filename else (0, 0)
    except OSError:
        return 0, 0
