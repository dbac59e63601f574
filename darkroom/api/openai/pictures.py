"""Pictures that are kept for a while, to be fetched by an address that nobody can guess. Knows nothing of requests."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

KEPT_S = 3600.0
"""Seconds after which an address leads nowhere."""

MAX_BYTES = 128_000_000
"""Of all kept pictures together; the oldest go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPicture:
    """A picture's file."""

    data: bytes
    media_type: str
    until: float


class KeptPictures:
    """The pictures of one application, by the names in their addresses. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, KeptPicture] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def put(self, data: bytes, media_type: str) -> str:
        """Keep a picture; gives its name."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._kept[name] = KeptPicture(data=data, media_type=media_type, until=self._clock() + KEPT_S)
            self._bytes += len(data)
            self._forget()
        return name

    def find(self, name: str) -> KeptPicture | None:
        """The picture of that name, if it is still kept."""
        with self._lock:
            self._forget()
            return self._kept.get(name)

    def _forget(self) -> None:
        """Drop what is too old or too much."""
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._bytes <= self._max_bytes and oldest.until > self._clock():
                return
            self._bytes -= len(self._kept.popitem(last=False)[1].data)
