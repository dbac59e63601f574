"""What owners have used of their limits: counted in the database, so that several servers count together and a restart
forgets nothing. Every method is one transaction. Called from worker threads; knows no HTTP.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from darkroom.allowances import Rate
from darkroom.history.database import Database
from darkroom.history.tables import Charge, Pace

WINDOW_S: Final = 3600.0
"""How long work counts."""

_LOCKS: Final = 0x6461726C
"""The first half of the key of PostgreSQL's locks, one for each owner."""


class Usage:
    """The counters in a database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def take_turn(self, owner: str, rate: Rate) -> float:
        """Count a request; seconds to wait where it is one too many, which is not counted then."""
        with self._database.begin() as session:
            lock_owner(session, owner)
            pace = session.get(Pace, owner)
            paid_at, wait_s = rate.take(pace.paid_at if pace else 0.0, self._clock())
            if pace is None:
                session.add(Pace(owner=owner, paid_at=paid_at))
            else:
                pace.paid_at = paid_at
            return wait_s

    def charge(self, owner: str, job_id: str, amount: float, limit: float) -> float:
        """Count work for a job; seconds to wait where that would be too much for any hour, and it is not counted then.

        `amount` is no more than the limit.
        """
        with self._database.begin() as session:
            lock_owner(session, owner)
            now = self._clock()
            counted = select(Charge.at, Charge.amount).where(Charge.owner == owner, Charge.at > now - WINDOW_S)
            past = [(row[0], row[1]) for row in session.execute(counted.order_by(Charge.at))]
            wait_s = _wait_s(past, amount, limit, now)
            if not wait_s:
                _add(session, owner, job_id, amount, now)
            return wait_s

    def add(self, owner: str, job_id: str, amount: float) -> None:
        """Count more work for a job that was let in."""
        with self._database.begin() as session:
            lock_owner(session, owner)
            _add(session, owner, job_id, amount, self._clock())

    def refund(self, job_id: str) -> None:
        """Nothing came of a job."""
        with self._database.begin() as session:
            session.execute(delete(Charge).where(Charge.job_id == job_id))

    def used(self, owner: str) -> float:
        """The work that counts now."""
        chosen = select(func.sum(Charge.amount)).where(Charge.owner == owner, Charge.at > self._clock() - WINDOW_S)
        with self._database.begin() as session:
            return session.scalar(chosen) or 0.0

    def tidy(self) -> None:
        """Forget what counts no more."""
        with self._database.begin() as session:
            session.execute(delete(Charge).where(Charge.at <= self._clock() - WINDOW_S))
            session.execute(delete(Pace).where(Pace.paid_at <= self._clock()))


def lock_owner(session: Session, owner: str) -> None:
    """Have other transactions about the same owner wait. On SQLite all do anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCKS, _signed(zlib.crc32(owner.encode())))))


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number


def _add(session: Session, owner: str, job_id: str, amount: float, now: float) -> None:
    known = session.get(Charge, job_id)
    if known is None:
        session.add(Charge(job_id=job_id, owner=owner, at=now, amount=amount))
    else:
        known.amount += amount


def _wait_s(past: Sequence[tuple[float, float]], amount: float, limit: float, now: float) -> float:
    """When there is room for more, as past work stops to count; 0 if there is now."""
    used = sum(one for _, one in past)
    if used + amount <= limit:
        return 0.0
    for at, one in past:
        used -= one
        if used + amount <= limit:
            return max(at + WINDOW_S - now, 0.001)
    return WINDOW_S
