"""What is to be told of jobs to whoever asked to be called: kept beside the jobs, so that a restart forgets none.

Nothing is written when a job begins or ends: a call is due as soon as the book says that its moment has come. Every
method is one transaction. Called from worker threads.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import or_, select, update

from darkroom.history.database import Database, HistoryDamaged
from darkroom.history.ledger import FINAL, Record, record_of
from darkroom.history.rows import read_all, read_one
from darkroom.history.tables import Job, Webhook

CallState = Literal["waiting", "delivered", "given_up", "unwanted"]

HOLD_S = 60.0
"""How long a server has for a call before it counts as lost, and another one calls again."""

LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A call whose time has come: what happened (`started`, or a final state) to which job. `tries` counts this one
    too; `id` stays the same, however many there are.
    """

    id: str
    job: Record
    url: str
    event: str
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a call stands. `events` are those that it is for; it is `unwanted` where the job came to another end."""

    id: str
    url: str
    events: tuple[str, ...]
    state: CallState
    tries: int
    next_at: float
    delivered_at: float | None = None
    error: str | None = None


class Outbox:
    """The calls in a database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def claim(self, limit: int) -> list[Due]:
        """Take calls that are due, the longest waiting first. Those that are not settled in time are due again."""
        try:
            return self._claim(limit)
        except HistoryDamaged:
            if not self._give_up_unreadable():
                raise
            return self._claim(limit)

    def _give_up_unreadable(self) -> int:
        """Give up calls that cannot be made any more, or whose jobs cannot be read. How many there were."""

        def read(webhook: Webhook) -> Record | None:
            return read_one(session, Job, webhook.job_id, record_of) if _call(webhook).events else None

        with self._database.begin() as session:
            ids = session.scalars(select(Webhook.id).where(Webhook.state == "waiting")).all()
            unreadable = [call_id for call_id in ids if read_one(session, Webhook, call_id, read) is None]
            session.execute(
                update(Webhook)
                .where(Webhook.id.in_(unreadable))
                .values(state="given_up")
                .execution_options(synchronize_session=False)
            )
            return len(unreadable)

    def _claim(self, limit: int) -> list[Due]:
        with self._database.begin() as session:
            now = self._clock()
            come = or_(Job.state.in_(FINAL), (Webhook.moment == "started") & Job.started_at.is_not(None))
            found = session.execute(
                select(Webhook, Job)
                .join(Job, Webhook.job_id == Job.id)
                .where(Webhook.state == "waiting", Webhook.next_at <= now, come)
                .order_by(Webhook.next_at)
                .limit(limit)
                .with_for_update(skip_locked=True, of=Webhook)
            ).all()
            return [due for webhook, job in found if (due := _begin(webhook, job, now))]

    def settle(self, call_id: str, error: str | None, *, most_tries: int, wait_s: float) -> CallState:
        """Write down what came of a call: delivered, or why not. How it stands then."""
        with self._database.begin() as session:
            webhook = session.get(Webhook, call_id)
            if webhook is None:
                return "unwanted"  # its job was removed meanwhile
            webhook.error = error
            if error is None:
                webhook.state, webhook.delivered_at = "delivered", self._clock()
            elif webhook.tries >= most_tries:
                webhook.state = "given_up"
            else:
                webhook.next_at = self._clock() + min(wait_s * 4 ** (webhook.tries - 1), LONGEST_WAIT_S)
            return cast(CallState, webhook.state)

    def hand_back(self, call_id: str) -> None:
        """A call was taken and not made: it is due at once, and was no try."""
        with self._database.begin() as session:
            session.execute(
                update(Webhook)
                .where(Webhook.id == call_id, Webhook.state == "waiting")
                .values(next_at=self._clock(), tries=Webhook.tries - 1)
            )

    def of_job(self, job_id: str) -> list[Call]:
        """The calls of a job, without those that cannot be read any more."""
        with self._database.begin() as session:
            ids = session.scalars(select(Webhook.id).where(Webhook.job_id == job_id).order_by(Webhook.moment.desc()))
            return list(read_all(session, Webhook, ids, _call).values())


def _begin(webhook: Webhook, job: Job, now: float) -> Due | None:
    """One more try; None where the job's course was not what the call is for."""
    event = "started" if webhook.moment == "started" and job.started_at is not None else job.state
    if event not in webhook.events:
        webhook.state = "unwanted"
        return None
    webhook.tries += 1
    webhook.next_at = now + HOLD_S
    return Due(id=webhook.id, job=record_of(job), url=webhook.url, event=event, tries=webhook.tries)


def _call(webhook: Webhook) -> Call:
    values = {name: getattr(webhook, name) for name in Call.__dataclass_fields__}
    return Call(**{**values, "events": tuple(webhook.events)})
