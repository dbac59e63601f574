"""Pickled files turned into safetensors by a process of its own, which can do nothing else; see `unpickler`.

Knows how that process is started and what its answers mean, and keeps the copies of large files. No torch.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from darkroom.errors import BadModelFile, NoRoom
from darkroom.nets.folders import state_of
from darkroom.nets.headers import MAX_HEADER_BYTES

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import os, sys
sys.path.append(sys.argv[1])
from darkroom.nets.unpickler.process import main
os._exit(main(*sys.argv[2:]))
"""
"""Nothing is tidied up behind it: ending an interpreter may open and import."""

MAX_DESCRIPTIONS = 4096

_SUFFIX = ".safetensors"
_STALE_S = 86_400
_LARGE_BYTES = 64 << 20
"""From here on room is made for a copy; smaller ones take part in that without asking for it."""


def convert(path: Path, target: IO[bytes], max_bytes: int) -> None:
    """Write what a pickled file holds into `target`, an empty file, as safetensors. Raises BadModelFile."""
    _run(path, "tensors", target, max_bytes)


def describe(path: Path) -> dict[str, Any]:
    """The safetensors header that a pickled file would have. Raises BadModelFile."""
    with tempfile.TemporaryFile() as target:
        _run(path, "names", target, MAX_HEADER_BYTES)
        target.seek(8)
        header: dict[str, Any] = json.loads(target.read())
    return header


def _run(path: Path, mode: str, target: IO[bytes], max_bytes: int) -> None:
    try:
        with path.open("rb") as source, tempfile.TemporaryFile() as said:
            seconds = 60 + os.fstat(source.fileno()).st_size / 10e6
            done = subprocess.run(  # noqa: S603  this interpreter, and a program of this package
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT), mode, str(max_bytes)],
                stdin=source, stdout=target, stderr=said, timeout=seconds, env=_environment(), check=False,
            )  # fmt: skip
            said.seek(0)
            reason = _reason(done.returncode, said.read(500)) if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        raise BadModelFile(f"{path.name}: reading it took more than {seconds:.0f} s") from error
    except OSError as error:
        raise BadModelFile(f"{path.name}: cannot be read: {error.strerror}") from error
    if reason:
        raise BadModelFile(f"{path.name}: {reason}")


def _environment() -> dict[str, str]:
    """What an interpreter may need to start; nothing of the server's own."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _reason(code: int, said: bytes) -> str:
    if code == 1 and said:
        text = said.decode("ascii", "replace").splitlines()[0]
        return f"is a pickled file that is not opened: {text}"
    if code < 0:
        return "is a pickled file; reading it took more time or memory than it may, or broke its reader"
    return "is a pickled file that is not opened: it tried to do what no file of weights does"


class Copies:
    """Safetensors copies of pickled files in a folder, by their content, the least recently used dropped first.

    `digest` names a file's content. Safe to use from several threads; several processes may share the folder.
    """

    def __init__(self, folder: Path, max_bytes: int, digest: Callable[[Path], str]) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._digest = digest
        self._lock = threading.Lock()

    def get(self, path: Path) -> Path:
        """The copy of a pickled file, made now if there is none. Raises BadModelFile."""
        try:
            copy = self._folder / f"{self._digest(path)}{_SUFFIX}"
            if copy.is_file():
                os.utime(copy)
                return copy
            self._folder.mkdir(parents=True, exist_ok=True)
            if path.stat().st_size >= _LARGE_BYTES:
                logger.info("%s: copied as safetensors to %s", path.name, copy)
                with self._lock:
                    self._make_room(path)
            make_copy(path, copy)
        except OSError as error:
            raise BadModelFile(f"{path.name}: no copy of it can be written: {error}") from error
        return copy

    def describe(self, path: Path) -> dict[str, Any]:
        """The safetensors header that a pickled file would have, kept until the file changes. Raises BadModelFile."""
        try:
            size, changed = state_of(path)
        except OSError as error:
            raise BadModelFile(f"{path.name}: cannot be read: {error.strerror}") from error
        key = hashlib.sha256(f"{size}:{changed}:{path.absolute()}".encode()).hexdigest()
        kept = self._folder / f"{key[:32]}.json"
        header = _find_kept(kept)
        if header is None:
            header = describe(path)
            self._keep(kept, header)
        return header

    def _keep(self, kept: Path, header: dict[str, Any]) -> None:
        part = kept.with_name(f"{kept.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(header, separators=(",", ":")), encoding="ascii")
            part.replace(kept)
            known = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
            for old in known[:-MAX_DESCRIPTIONS]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s: what it says of a pickled file is not kept: %s", kept, error)

    def _make_room(self, path: Path) -> None:
        """Drop what is older until a copy as large as the file fits. Raises NoRoom if the disk is full."""
        coming_bytes = path.stat().st_size
        for part in self._folder.glob("*.part"):
            if part.stat().st_mtime < time.time() - _STALE_S:
                part.unlink(missing_ok=True)
        copies = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda copy: copy.stat().st_mtime)
        total = sum(copy.stat().st_size for copy in copies)
        for copy in copies:
            if total + coming_bytes <= self._max_bytes:
                break
            total -= copy.stat().st_size
            copy.unlink(missing_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < coming_bytes:
            raise NoRoom(
                f"{path.name}: its safetensors copy takes about {coming_bytes} bytes in {self._folder}, and {free} are"
                " free"
            )


def _find_kept(kept: Path) -> dict[str, Any] | None:
    try:
        header = json.loads(kept.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s: passed over: %s", kept, error)
        return None
    return header if isinstance(header, dict) else None


def make_copy(path: Path, copy: Path) -> None:
    """Write a pickled file's safetensors copy, all of it or nothing. Raises BadModelFile, OSError."""
    part = copy.with_name(f"{copy.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with part.open("xb") as target:
            convert(path, target, 2 * path.stat().st_size + (1 << 20))
            target.flush()
            os.fsync(target.fileno())
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
