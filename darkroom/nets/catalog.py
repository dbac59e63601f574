"""The checkpoint files there are: where, under which name, with which hashes. Knows no tensors; no torch.

Listing never waits for a hash: one thread computes the missing ones and keeps them in a cache file.
"""

import hashlib
import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from darkroom.errors import BadModelFile
from darkroom.nets.architecture import Conditioning, conditioning_of, identify, is_guided, text_width
from darkroom.nets.config import ModelConfig, beside, read_config
from darkroom.nets.conversion import Copies
from darkroom.nets.folder_config import INDEX
from darkroom.nets.folders import state_of, weight_files
from darkroom.nets.headers import preferred_vae
from darkroom.nets.inspection import find_shapes

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".ckpt")
MAX_DEPTH = 12
DESCRIBED_AT_ONCE = 4
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFile:
    """One checkpoint: a file, or a folder in diffusers' layout. `path` is relative to the folder that was searched,
    with `/`; `filename` and `config` are absolute.

    `sha256` is None until computed; `old_hash` (8 digits) is the one by which early infotexts name a model.
    `architecture` is what `identify` says of it, `guided` what `is_guided` does, `settings` what the YAML says.
    """

    filename: str
    path: str
    sha256: str | None = None
    old_hash: str | None = None
    config: str | None = None
    settings: ModelConfig = field(default_factory=ModelConfig)
    architecture: str = "sd1"
    guided: bool = False
    conditioning: Conditioning = "none"
    text_width: int | None = None
    preferred_vae: str | None = None


def embedded() -> Path | None:
    """The model that comes with the package, or None in a package built without it."""
    path = Path(str(files("darkroom"))) / "mini" / "darkroom-mini.safetensors"
    return path if path.is_file() else None


class Catalog:
    """The checkpoints of some folders, as of the last `refresh`; `fallback` is listed when there are none.

    `first` is listed before all others. `cache` is the JSON file in which hashes outlive the process (None: they do
    not), and `copies` remember what pickled files hold. Without `hashing` no hash is computed that nobody asks for by
    `sha256`. Safe to use from several threads.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        first: Path | None = None,
        fallback: Path | None = None,
        cache: Path | None = None,
        copies: Copies | None = None,
        hashing: bool = True,
    ) -> None:
        self._folders = tuple(folder.absolute() for folder in folders)
        self._first = first.absolute() if first else None
        self._fallback = fallback
        self._copies = copies
        self._hashing = hashing
        self._hashes = Hashes(cache)
        self._found: tuple[tuple[str, CheckpointFile], ...] = ()
        self._unhashed: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._hash_all, name="checkpoint-hashes", daemon=True)

    def refresh(self, *, hidden: bool = True) -> tuple[CheckpointFile, ...]:
        """Look at the folders again, in natural order, folder by folder; start hashing what has no hash yet.

        Unless `hidden`, folders whose names begin with a dot are passed over.
        """
        found = [(path, folder) for folder in self._folders for path in _checkpoints(folder, hidden=hidden)]
        if self._first is not None and self._first.exists():
            root = next((folder for folder in self._folders if self._first.is_relative_to(folder)), self._first.parent)
            found = [(self._first, root), *(entry for entry in found if entry[0] != self._first)]
        if not found and self._fallback is not None:
            found = [(self._fallback, self._fallback.parent)]
        self._found = tuple(self._describe_all(found))
        listed = self.checkpoints()
        if self._hashing:
            self._hash_later(listed)
        return listed

    def _hash_later(self, listed: Iterable[CheckpointFile]) -> None:
        for file in listed:
            if file.sha256 is None:
                self._unhashed.put(Path(file.filename))
        if self._worker.ident is None:
            self._worker.start()

    def _describe_all(self, found: Iterable[tuple[Path, Path]]) -> Iterator[tuple[str, CheckpointFile]]:
        """The files with their states; several at once, as pickled ones are looked into by processes of their own."""
        with ThreadPoolExecutor(DESCRIBED_AT_ONCE, thread_name_prefix="checkpoints") as pool:
            described = pool.map(self._find_description, found)
        # A1111: of several with one name the last one counts.
        yield from {file.path: (state, file) for state, file in filter(None, described)}.values()

    def _find_description(self, found: tuple[Path, Path]) -> tuple[str, CheckpointFile] | None:
        path, folder = found
        try:
            return identity(path), _describe(path, folder, self._copies)
        except OSError:
            return None  # gone since the folder was read

    def checkpoints(self) -> tuple[CheckpointFile, ...]:
        """What the last `refresh` found, with the hashes known by now. Touches no disk."""
        return tuple(replace(file, sha256=self._hashes.find(state)) for state, file in self._found)

    def sha256(self, filename: str, stopped: Callable[[], bool] = lambda: False) -> str:
        """The hash of one file, computed here and now if it is not known. Raises BadModelFile if it cannot be read, or
        on a stop.
        """
        path = Path(filename)
        try:
            return self._hashes.get(path, stopped)
        except OSError as error:
            raise BadModelFile(f"{path.name}: cannot be read: {error}") from error

    def remember(self, path: Path, sha256: str) -> None:
        """Take over the hash of a file that was just written. Raises OSError if it is gone."""
        self._hashes.remember(path, sha256)

    def close(self) -> None:
        """Stop hashing; returns when the thread has ended."""
        self._stop.set()
        self._unhashed.put(None)
        if self._worker.ident is not None:
            self._worker.join()

    def _hash_all(self) -> None:
        while (path := self._unhashed.get()) is not None and not self._stop.is_set():
            try:
                self._hashes.get(path, self._stop.is_set)
            except OSError as error:
                if not self._stop.is_set():
                    logger.warning("%s: no hash: %s", path, error)


class Hashes:
    """SHA-256 by file, valid while size and modification time stay; optionally kept in a JSON file."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[str, str] = _read_cache(cache)

    def find(self, state: str) -> str | None:
        """The hash if it is known for this state of a file, see `identity`."""
        return self._known.get(state)

    def get(self, path: Path, stopped: Callable[[], bool] = lambda: False, *, offset: int = 0) -> str:
        """The hash of all bytes from `offset` on, computed if need be.

        Raises OSError if the file cannot be read or changes, or on a stop.
        """
        state = identity(path)
        key = f"{offset}+{state}" if offset else state
        known = self._known.get(key)
        if known is not None:
            return known
        digest = _digest_of_folder(path, stopped) if path.is_dir() else _digest(path, stopped, offset)
        if identity(path) != state:
            raise OSError("the file changed while it was read")
        with self._lock:
            self._known[key] = digest
            self._write()
        return digest

    def remember(self, path: Path, sha256: str) -> None:
        """Take over a hash that somebody else computed. Raises OSError if the file is gone."""
        state = identity(path)
        with self._lock:
            self._known[state] = sha256
            self._write()

    def _write(self) -> None:
        if self._cache is None:
            return
        part = self._cache.with_suffix(f".{os.getpid()}.part")
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"sha256": self._known}, indent=0, sort_keys=True), encoding="utf-8")
            part.replace(self._cache)
        except OSError as error:
            logger.warning("%s: hashes are not kept: %s", self._cache, error)


def _digest(path: Path, stopped: Callable[[], bool], offset: int = 0) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_READ_BYTES):
            if stopped():
                raise InterruptedError("stopped")
            digest.update(block)
    return digest.hexdigest()


def _digest_of_folder(folder: Path, stopped: Callable[[], bool]) -> str:
    """The hash of the hashes of a model's files, in the order of their names."""
    lines = (f"{_digest(file, stopped)}  {file.relative_to(folder).as_posix()}\n" for file in weight_files(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_cache(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    try:
        entries = json.loads(cache.read_text(encoding="utf-8"))["sha256"]
        return {key: value for key, value in entries.items() if re.fullmatch("[0-9a-f]{64}", value)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: ignored, not a cache of hashes: %s", cache, error)
        return {}


def identity(path: Path) -> str:
    """A text that changes when the file, or a model's folder, does. Raises OSError."""
    size, changed = state_of(path)
    return f"{size}:{changed}:{path}"


def walk(folder: Path, accept: Callable[[Path], bool], *, hidden: bool = True) -> Iterator[Path]:
    """The accepted files below a folder in natural order. Links are followed, but no folder is entered twice.

    Unless `hidden`, folders whose names begin with a dot are passed over.
    """
    entered: set[str] = set()
    levels: list[tuple[str, list[str]]] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        deep = len(Path(root).relative_to(folder).parts) >= MAX_DEPTH
        if real in entered or deep:
            folders.clear()
        if real not in entered:
            levels.append((root, names))
        entered.add(real)
        folders[:] = sorted((name for name in folders if hidden or not name.startswith(".")), key=_natural)
    for root, names in sorted(levels, key=lambda level: _natural(level[0])):
        yield from filter(accept, (Path(root, name) for name in sorted(names, key=_natural)))


def _checkpoints(folder: Path, *, hidden: bool) -> Iterator[Path]:
    """Files, and folders in diffusers' layout, whose own files are not listed."""
    found = list(walk(folder, _is_checkpoint, hidden=hidden))
    models = {path.parent for path in found if path.name == INDEX}
    for path in found:
        if path.name == INDEX:
            yield path.parent
        elif models.isdisjoint(path.parents):
            yield path


def _is_checkpoint(path: Path) -> bool:
    name = path.name.lower()
    wanted = name == INDEX or (name.endswith(SUFFIXES) and not path.stem.lower().endswith(".vae"))
    return wanted and path.is_file()


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which v2 comes before v10, and case does not count."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text.lower()) if part
    ]


def _describe(path: Path, folder: Path, copies: Copies | None) -> CheckpointFile:
    config = beside(path)
    shapes = find_shapes(path, copies)
    architecture = identify(shapes)
    return CheckpointFile(
        filename=str(path),
        path=path.relative_to(folder).as_posix(),
        old_hash=old_hash(path),
        config=str(config) if config else None,
        settings=_config_or_default(config, architecture),
        architecture=architecture,
        guided=is_guided(shapes),
        conditioning=conditioning_of(shapes),
        text_width=text_width(shapes),
        preferred_vae=preferred_vae(path),
    )


def _config_or_default(config: Path | None, architecture: str) -> ModelConfig:
    try:
        return read_config(config, architecture)
    except BadModelFile as error:
        logger.warning("%s", error)  # loading it will say so again, to whoever asks for it
        return read_config(None, architecture)


def old_hash(path: Path) -> str | None:
    """Eight digits by which early infotexts name a model; None for a folder."""
    # A1111: 64 KiB from the file's second megabyte stood for the whole.
    try:
        with path.open("rb") as file:
            file.seek(0x100000)
            return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    except OSError:
        return None
