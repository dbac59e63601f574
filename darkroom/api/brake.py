"""Slows down whoever guesses passwords, address by address. Knows nothing of passwords or of HTTP."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from darkroom.errors import TooManyAttempts

BURST = 10
"""Attempts that an address may make at once."""

PACE_S = 10.0
"""Seconds after which it may make one more."""

MAX_ADDRESSES = 10_000
"""Addresses that are remembered; those that were slowed down longest ago are forgotten first."""


class Brake:
    """A leaky bucket for each address: the generic cell rate algorithm (ITU-T I.371, annex A).

    One number is kept of an address: when all its attempts so far would have been made at the regular pace.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_at: OrderedDict[str, float] = OrderedDict()

    def take(self, address: str) -> None:
        """Count an attempt. Raises TooManyAttempts, and then counts nothing."""
        place, now = _network(address), self._clock()
        paid_at = max(self._paid_at.get(place, now), now)
        wait_s = paid_at - now - (BURST - 1) * PACE_S
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise TooManyAttempts(f"too many attempts; come again in {seconds} s", retry_after_s=seconds)
        self._paid_at[place] = paid_at + PACE_S
        self._paid_at.move_to_end(place)
        if len(self._paid_at) > MAX_ADDRESSES:
            self._paid_at.popitem(last=False)

    def give_back(self, address: str) -> None:
        """An attempt that was counted was none: the password was right."""
        place = _network(address)
        paid_at = self._paid_at.pop(place, 0.0) - PACE_S
        if paid_at > self._clock():
            self._paid_at[place] = paid_at

    def __len__(self) -> int:
        return len(self._paid_at)


def _network(address: str) -> str:
    """What one person has of addresses: a whole /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
