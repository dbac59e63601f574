"""What an engine tells of its work while it does it, to somebody who wants to know where the time goes."""

from collections.abc import Mapping
from typing import Final, Protocol

from darkroom.engine.client import JobStatus


class Watcher(Protocol):
    """Told of jobs. It must be quick: the device waits for it."""

    def submitted(self, job_id: str) -> None:
        """A job has come. Called in the context of whoever brings it."""

    def worked(self, kind: str, rows: Mapping[str, int], seconds: float) -> None:
        """A batch of questions of a kind was answered just now; `rows` are the network inputs of each job in it."""

    def ended(self, status: JobStatus) -> None:
        """A job has ended."""


class Unwatched:
    """Nobody wants to know."""

    def submitted(self, job_id: str) -> None:
        """Nobody hears it."""

    def worked(self, kind: str, rows: Mapping[str, int], seconds: float) -> None:
        """Nobody hears it."""

    def ended(self, status: JobStatus) -> None:
        """Nobody hears it."""


UNWATCHED: Final = Unwatched()
