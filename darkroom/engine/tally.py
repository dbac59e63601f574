"""What the device thread has done so far, counted while it works and read by anybody. Knows no networks."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from threading import Lock
from types import MappingProxyType

from darkroom.engine.client import EngineStats, Histogram, JobStatus, State

ROWS = tuple(float(2**n) for n in range(9))
"""Bounds of batches, network inputs."""

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
"""Bounds of waits and of service, seconds: from the embedded model's picture to a long batch on a CPU."""


class Tally:
    """Counts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: dict[str, _Counts] = {}
        self._seconds: dict[str, float] = {}
        self._waits: dict[str, _Counts] = {}
        self._services: dict[str, _Counts] = {}
        self._ended: dict[State, int] = {}
        self._resident_bytes = 0

    def count_batch(self, kind: str, rows: int, seconds: float) -> None:
        """A batch of questions of a kind was answered."""
        with self._lock:
            self._rows.setdefault(kind, _Counts(ROWS)).add(rows)
            self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def count_job(self, status: JobStatus) -> None:
        """A job has ended. One that never began has waited for nothing, and is counted by its end alone."""
        model = getattr(status.spec, "checkpoint", "")  # a finished picture that is worked on has none
        with self._lock:
            self._ended[status.state] = self._ended.get(status.state, 0) + 1
            if status.started_at is None or status.ended_at is None:
                return
            self._waits.setdefault(model, _Counts(SECONDS)).add(status.started_at - status.submitted_at)
            self._services.setdefault(model, _Counts(SECONDS)).add(status.ended_at - status.started_at)

    def note_resident(self, nbytes: int) -> None:
        """So many bytes of models are held now."""
        with self._lock:
            self._resident_bytes = nbytes

    def read(self) -> EngineStats:
        """Everything, at one moment."""
        with self._lock:
            return EngineStats(
                rows=_read(self._rows),
                seconds=MappingProxyType(dict(self._seconds)),
                waits=_read(self._waits),
                services=_read(self._services),
                ended=MappingProxyType(dict(self._ended)),
                resident_bytes=self._resident_bytes,
            )


class _Counts:
    """A histogram that grows."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Histogram:
        return Histogram(bounds=self._bounds, counts=tuple(self._counts), total=self._total)


def _read(counts: Mapping[str, _Counts]) -> Mapping[str, Histogram]:
    return MappingProxyType({name: one.read() for name, one in counts.items()})
