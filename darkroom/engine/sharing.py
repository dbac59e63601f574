"""How much of the device each party has had: parties share alike, however many pictures they have in work.

Start-time fair queueing (Goyal, Vin and Cheng 1996, doi:10.1145/248156.248171) over parties; within a party its lanes
go by when each would end. Where there is one party, the order is that of the lanes alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_MEMORY = 0.9
"""How much of the mean time of an answer is of the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A lane that asks: whose it is, when it would end if all shared alike (see `sojourns`), and its place in the order
    of arrival.
    """

    party: str
    end_s: float
    arrival: int


class Shares:
    """Remembers what parties were served, in device seconds."""

    __slots__ = ("_answer_s", "_present", "_served_s", "_virtual_s")

    def __init__(self) -> None:
        self._served_s: dict[str, float] = {}
        self._present = set[str]()
        self._virtual_s = 0.0
        self._answer_s = 0.0

    def serve(self, party: str, seconds: float) -> None:
        """A lane of a party was answered."""
        self._served_s[party] = self._tag(party) + seconds
        self._answer_s = seconds if not self._answer_s else _MEMORY * self._answer_s + (1 - _MEMORY) * seconds

    def levels(self, asking: Mapping[int, Share]) -> dict[int, float]:
        """The order in which lanes are served: by what their parties were served, and within a party by their ends."""
        parties = {share.party for share in asking.values()}
        self._move_on(parties)
        if len(parties) < 2:
            return {lane: share.end_s for lane, share in asking.items()}
        order = sorted(asking, key=lambda lane: (asking[lane].end_s, asking[lane].arrival))
        following = dict.fromkeys(parties, 0)
        levels: dict[int, float] = {}
        for lane in order:
            party = asking[lane].party
            levels[lane] = self._tag(party) + following[party] * self._answer_s
            following[party] += 1
        return levels

    def _tag(self, party: str) -> float:
        """Who comes anew begins where the others are, with no claim to the time before."""
        return max(self._served_s.get(party, 0.0), self._virtual_s)

    def _move_on(self, parties: set[str]) -> None:
        """The virtual time is what the least served had of those who went on asking. Who has had no more and asks for
        nothing is forgotten.
        """
        staying = parties & self._present
        if staying:
            self._virtual_s = max(self._virtual_s, min(map(self._tag, staying)))
        self._present = parties
        for party in self._served_s.keys() - parties:
            if self._served_s[party] <= self._virtual_s:
                del self._served_s[party]
