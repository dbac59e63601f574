"""That the server stops: told once, heard by whoever would keep it from stopping. Knows no server and no route."""

import asyncio
import time
from contextlib import suppress


class Stopping:
    """Begun when no new connections are taken any more. What is at work has until then to come to its end."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._until_s = 0.0

    def begin(self, limit_s: float) -> None:
        """Say that the server stops in so many seconds at most. Called by the thread of the event loop."""
        self._until_s = time.monotonic() + limit_s
        self._told.set()

    @property
    def begun(self) -> bool:
        """Whether the server stops."""
        return self._told.is_set()

    @property
    def time_left_s(self) -> float:
        """How long work may go on; 0 where nobody said that the server stops."""
        return max(self._until_s - time.monotonic(), 0.0)

    async def sleep(self, seconds: float) -> None:
        """Wait, but not longer than the server works."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), seconds)
