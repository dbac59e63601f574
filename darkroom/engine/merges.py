"""How long it takes to have other adapters in a network: what is in it now, and what merging took before. No torch.

Knows nothing of files and weights: networks and sets of adapters are keys here.
"""

from collections import OrderedDict
from collections.abc import Hashable

GUESS_S = 0.2
"""What merging is taken to cost in a network into which nothing was merged yet."""

REMEMBERED = 256

NONE: tuple[Hashable, ...] = ()


class Merges:
    """Per network and part of it (its text encoder, its denoiser): the adapters in it, and measured seconds by set."""

    __slots__ = ("_last_s", "_present", "_seconds")

    def __init__(self) -> None:
        self._present: dict[Hashable, tuple[Hashable, ...]] = {}
        self._last_s: dict[Hashable, float] = {}
        self._seconds: OrderedDict[Hashable, float] = OrderedDict()

    def merge_s(self, place: Hashable, adapters: tuple[Hashable, ...]) -> float:
        """About how many seconds it would take now to have exactly these adapters there; 0 if they are."""
        if self._present.get(place, NONE) == adapters:
            return 0.0
        return self._seconds.get((place, adapters), self._last_s.get(place, GUESS_S))

    def note(self, place: Hashable, adapters: tuple[Hashable, ...], seconds: float) -> None:
        """These adapters are there now; having them there took so long."""
        if self._present.get(place, NONE) == adapters:
            return
        self._present[place] = adapters
        self._seconds[place, adapters] = self._last_s[place] = seconds
        self._seconds.move_to_end((place, adapters))
        if len(self._seconds) > REMEMBERED:
            self._seconds.popitem(last=False)

    def forget(self, place: Hashable) -> None:
        """The network was loaded anew: nothing is in it."""
        self._present.pop(place, None)
