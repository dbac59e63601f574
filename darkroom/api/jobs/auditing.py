"""What is written down of a request: who asked for what and when."""

import time
from dataclasses import replace

from darkroom.api.jobs.attempt import Attempt, Drawn
from darkroom.api.owners import EVERYBODY
from darkroom.api.running import CLIENT_CLOSED_REQUEST
from darkroom.history.audit import Entry
from darkroom.settings import Settings


def is_audited(attempt: Attempt, settings: Settings) -> bool:
    """Whether a request is written down: where it is known who asks, and the operator wants it."""
    return attempt.owner != EVERYBODY and settings.audit_days > 0


def entry_of(attempt: Attempt) -> Entry:
    """The entry of a request that is promised now."""
    drawn = attempt.drawn
    entry = Entry(
        id=attempt.id,
        owner=attempt.owner,
        at=attempt.began,
        kind=attempt.kind,
        model=attempt.model,
        work=attempt.work or None,
        priority=attempt.priority,
    )
    if drawn is None:
        return entry
    return replace(
        entry, prompt=drawn.prompt, seed=drawn.seed, width=drawn.width, height=drawn.height, steps=drawn.steps
    )


def ended_entry(attempt: Attempt, status: int) -> Entry:
    """The entry of a request that somebody waited for, and that was answered with a status; 0 for no answer."""
    state = "failed"
    if attempt.cancelled or status == CLIENT_CLOSED_REQUEST:
        state = "cancelled"
    elif status == 200:
        state = "interrupted" if attempt.interrupted else "done"
    images = attempt.images if state in ("done", "interrupted") else 0
    return replace(entry_of(attempt), state=state, ended_at=time.time(), images=images)


def drawn_again(entry: Entry | None) -> Drawn | None:
    """What is drawn where a request is asked again."""
    if entry is None or entry.seed is None:
        return None
    return Drawn(
        prompt=entry.prompt,
        seed=entry.seed,
        width=entry.width or 0,
        height=entry.height or 0,
        steps=entry.steps or 0,
    )
