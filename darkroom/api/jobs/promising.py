"""A request that is in order becomes a job in the book, within the limits of its owner."""

from darkroom.api.jobs.attempt import Attempt
from darkroom.api.jobs.auditing import drawn_again, entry_of, is_audited
from darkroom.api.jobs.desk import Desk
from darkroom.api.limits import Limits
from darkroom.history.ledger import Asked, Hook, Record


async def promise(
    desk: Desk, limits: Limits, attempt: Attempt, asked: Asked, key: str | None = None, hook: Hook | None = None
) -> tuple[Record, bool]:
    """Enter a request; the earlier one of the same key. True if it is new; what was counted for one that is not, is
    counted no more. Raises Busy, OverLimit.
    """
    entry = entry_of(attempt) if is_audited(attempt, desk.settings) else None
    most, beside = attempt.allowance.jobs, limits.waited_for(attempt.owner)
    new = False
    try:
        record, new = await desk.accept(attempt, asked, key, hook, most_open=most, beside=beside, entry=entry)
    finally:
        if not new:
            await limits.refund(attempt)
    return record, new


async def promise_again(desk: Desk, limits: Limits, attempt: Attempt, asked: Asked, before: str) -> Record:
    """Enter what was asked before, as the job `before`. Raises Busy, OverLimit, LimitExceeded."""
    await limits.take_turn(attempt.owner, attempt.allowance)
    known = await desk.do(lambda books: books.audit.find(before))
    attempt.drawn, attempt.work = drawn_again(known), (known.work or 0.0) if known else 0.0
    await limits.charge(attempt, attempt.work)
    record, _ = await promise(desk, limits, attempt, asked)
    return record
