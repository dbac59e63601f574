"""Hashes that nobody waits for: computed aside, once for all who ask, and there for the next one if they are late."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

PATIENCE_S = 1.0
"""How long a request waits for the hash of a file that nobody has asked for before: enough for a gigabyte or so."""


class Hasher:
    """Runs `compute` (which knows what it has computed before) for a file from a place on, aside. Thread-safe."""

    __slots__ = ("_compute", "_lock", "_patience_s", "_running")

    def __init__(self, compute: Callable[[Path, int], str], patience_s: float = PATIENCE_S) -> None:
        self._compute = compute
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._running: dict[tuple[Path, int], Future[str]] = {}

    def find(self, path: Path, offset: int = 0) -> str | None:
        """The hash of all bytes from `offset` on; None while it is being computed. Raises what `compute` raises."""
        try:
            return self._begin(path, offset).result(self._patience_s)
        except TimeoutError:
            return None

    def _begin(self, path: Path, offset: int) -> Future[str]:
        """The computation that runs for this file already, or a new one."""
        key = path, offset
        with self._lock:
            found = self._running.get(key)
            if found is None:
                found = self._running[key] = Future()
                threading.Thread(target=self._run, args=(key, found), name="hash", daemon=True).start()
            return found

    def _run(self, key: tuple[Path, int], result: Future[str]) -> None:
        try:
            result.set_result(self._compute(*key))
        except OSError as error:
            result.set_exception(error)
        finally:
            with self._lock:
                del self._running[key]
