"""How much a user or a key may do: requests for work at a pace, jobs at once, work in an hour. One per application.

What is used is counted in the database, for all servers that share it; requests that are waited for, at each server by
itself. Limits are kept also while nothing can be counted: then limited users and keys are told to come again.
"""

import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import HTTPConnection

from darkroom.allowances import Allowance
from darkroom.api.jobs.attempt import Attempt, Drawn, find_attempt
from darkroom.api.jobs.desk import Desk
from darkroom.errors import LimitExceeded, OverLimit
from darkroom.jobs.retouching import Spec
from darkroom.jobs.spec import JobSpec

_AGAIN_S = 2
"""Nobody knows when a job will have ended."""


class Limits:
    """Lets requests in, or says which limit is reached and when to come again."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._attended = Counter[str]()

    async def take_turn(self, owner: str, allowance: Allowance) -> None:
        """Count a request for work. Raises OverLimit."""
        rate = allowance.rate
        if rate is None:
            return
        wait_s = await self._desk.do(lambda books: books.usage.take_turn(owner, rate))
        if wait_s:
            raise OverLimit(f"rate: no more than {rate} requests for work", retry_after_s=math.ceil(wait_s))

    @asynccontextmanager
    async def attended(self, attempt: Attempt) -> AsyncIterator[None]:
        """While somebody waits for a request. Raises OverLimit."""
        owner, most = attempt.owner, attempt.allowance.jobs
        if most is not None:
            promised = await self._desk.do(lambda books: books.ledger.count_open(owner))
            if promised + self._attended[owner] >= most:
                words = f"jobs: no more than {most} of yours may wait or be at work at once"
                raise OverLimit(words, retry_after_s=_AGAIN_S)
        self._attended[owner] += 1
        try:
            yield
        finally:
            self._attended[owner] -= 1
            if not self._attended[owner]:
                del self._attended[owner]

    def waited_for(self, owner: str) -> int:
        """How many requests of an owner are waited for here."""
        return self._attended[owner]

    async def charge(self, attempt: Attempt, amount: float) -> None:
        """Count work. What a request needs beyond its first part is counted, and not refused. Raises OverLimit, and
        LimitExceeded for what is too much for any hour.
        """
        limit = attempt.allowance.work
        if limit is None or not amount:
            return
        if attempt.charged:
            await self._desk.do(lambda books: books.usage.add(attempt.owner, attempt.id, amount))
            return
        if amount > limit:
            raise LimitExceeded("work", f"{amount:.4g}", f"at most {limit:g} megapixels times steps in an hour")
        wait_s = await self._desk.do(lambda books: books.usage.charge(attempt.owner, attempt.id, amount, limit))
        if wait_s:
            words = f"work: no more than {limit:g} megapixels times steps in an hour, and this needs {amount:.4g}"
            raise OverLimit(words, retry_after_s=math.ceil(wait_s))
        attempt.charged = True

    async def refund(self, attempt: Attempt) -> None:
        """Nothing came of a request."""
        if attempt.charged:
            attempt.charged = False
            await self._desk.do(lambda books: books.usage.refund(attempt.id))


def limits_of(connection: HTTPConnection) -> Limits:
    """The application's limits."""
    found = connection.app.state.limits
    assert isinstance(found, Limits), "the application has limits"
    return found


async def charge(request: HTTPConnection, *specs: Spec) -> None:
    """Note what a request draws, and count it. Raises OverLimit, LimitExceeded."""
    attempt = find_attempt(request)
    if attempt is None:
        return
    amount = sum(map(work_of, specs))
    attempt.work += amount
    attempt.drawn = attempt.drawn or next((_drawn(spec) for spec in specs if isinstance(spec, JobSpec)), None)
    await limits_of(request).charge(attempt, amount)


def _drawn(spec: JobSpec) -> Drawn:
    return Drawn(prompt=spec.prompt, seed=spec.seeds[0], width=spec.width, height=spec.height, steps=spec.steps)


def work_of(spec: Spec) -> float:
    """How much a job is, in megapixels times steps, over all its pictures and passes. Work without steps is none."""
    if not isinstance(spec, JobSpec):
        return 0.0
    first = spec.width * spec.height * _steps(spec)
    second = 0
    if spec.hires:
        width, height = spec.hires.size
        second = width * height * _shortened(spec.hires.steps, spec.hires.denoising_strength)
        first = 0 if spec.hires.picture is not None else first
    return (first + second) * spec.batch_size * spec.n_iter / 1e6


def _steps(spec: JobSpec) -> int:
    init = spec.init
    return spec.steps if init is None or init.fix_steps else _shortened(spec.steps, init.denoising_strength)


def _shortened(steps: int, strength: float) -> int:
    """The steps that are left where sampling begins with a picture. A1111: `int(min(strength, 0.999) * steps)`, and one
    more.
    """
    return min(steps, int(min(strength, 0.999) * steps) + 1)
