"""The jobs that wait for a place on the device, in lines of one party and one priority. The device thread's alone."""

from collections import deque
from collections.abc import Iterator, Mapping

from darkroom.engine.job import Job
from darkroom.turns import Line, has_place, in_turn

_REMEMBERED = 1024
"""Lines of which it is remembered when they had their last turn."""

_Name = tuple[str, int]


class Waitlist:
    """`next` says whose turn it is. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._lines: dict[_Name, deque[tuple[float, Job]]] = {}
        self._begun_at: dict[_Name, float] = {}

    def __iter__(self) -> Iterator[Job]:
        return (job for line in self._lines.values() for _, job in line)

    def __contains__(self, job: Job) -> bool:
        return any(job is waiting for _, waiting in self._lines.get(_name(job), ()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, job: Job, now: float) -> None:
        """A job comes."""
        self._lines.setdefault(_name(job), deque()).append((now, job))

    def remove(self, job: Job) -> None:
        """A job waits no more."""
        name = _name(job)
        line = self._lines[name]
        line.remove(next(entry for entry in line if entry[1] is job))
        if not line:
            del self._lines[name]

    def next(self, taken: Mapping[str, int], room: int, now: float) -> Job | None:
        """The job that is begun now, where parties have taken so many places of the room; None if none has a place.

        Who finds too little room though he or she has nothing at work waits for it, and is overtaken by nobody. Who
        has to leave free what is left, is overtaken by those for whom it is left. An empty room is large enough for
        any job.
        """
        kept_waiting = False
        for line in in_turn(self._described(taken), now):
            if kept_waiting and taken.get(line.party):
                continue
            job = self._lines[line.party, line.priority][0][1]
            if not taken or has_place(line.party, taken, room, job.spec.batch_size):
                return self._begin(job, now)
            if not taken.get(line.party):
                return None
            kept_waiting = True
        return None

    def _begin(self, job: Job, now: float) -> Job:
        self.remove(job)
        self._begun_at.pop(_name(job), None)
        self._begun_at[_name(job)] = now  # the last of them
        if len(self._begun_at) > _REMEMBERED:
            del self._begun_at[next(iter(self._begun_at))]
        return job

    def _described(self, taken: Mapping[str, int]) -> Iterator[Line]:
        served_at: dict[str, float] = {}
        for (party, _), moment in self._begun_at.items():
            served_at[party] = max(moment, served_at.get(party, moment))
        for (party, priority), line in self._lines.items():
            never = -float("inf")
            yield Line(
                party=party,
                priority=priority,
                since=line[0][0],
                begun_at=self._begun_at.get((party, priority), never),
                served_at=served_at.get(party, never),
                at_work=taken.get(party, 0),
            )


def _name(job: Job) -> _Name:
    return job.standing.party, job.standing.priority
