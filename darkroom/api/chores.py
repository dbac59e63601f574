"""Work that is no job of the engine, and that clients can watch and stop like one: merges, descriptions of pictures."""

import time
from asyncio import Lock
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Literal

from darkroom.errors import Busy

Kind = Literal["model-merge", "interrogate"]
"""A1111's names for such work."""

_REMEMBERED = 16


@dataclass(slots=True, kw_only=True, eq=False)
class Chore:
    """One piece of work: what it does now (`text`), and how many of how many steps it has done.

    It waits until `running`. `stop` is set by whoever wants it to end early.
    """

    kind: Kind
    task_id: str
    began: float
    running: bool = False
    text: str | None = None
    done: int = 0
    total: int = 1
    stop: Event = field(default_factory=Event)

    @property
    def fraction(self) -> float:
        """How much of it is done, 0..1."""
        return self.done / max(self.total, 1)

    def move(self, text: str, done: int, total: int) -> None:
        """It has come so far. May be called from another thread."""
        self.text, self.done, self.total = text, done, total


class Chores:
    """The chores of one user, in order of their beginning, and the names of the last that ended. All users share the
    `locks`.
    """

    def __init__(self, locks: Mapping[Kind, Lock] | None = None) -> None:
        self.locks = locks or {"model-merge": Lock(), "interrogate": Lock()}
        self.present: list[Chore] = []
        self.ended: deque[str] = deque(maxlen=_REMEMBERED)

    @asynccontextmanager
    async def doing(self, kind: Kind, task_id: str, most: int) -> AsyncIterator[Chore]:
        """A chore that is shown for as long as this is entered, and is told to stop when it is left early.

        Of each kind one runs at a time, so that pictures have their turn in between. Raises Busy where `most` wait.
        """
        if len(self.present) >= most:
            raise Busy(f"{len(self.present)} merges and descriptions are waiting already; at most {most} may")
        chore = Chore(kind=kind, task_id=task_id or f"task({kind})", began=time.time())
        self.present.append(chore)
        try:
            async with self.locks[kind]:
                chore.running = True
                yield chore
        finally:
            chore.stop.set()
            self.present.remove(chore)
            self.ended.append(chore.task_id)

    @property
    def running(self) -> list[Chore]:
        """Those that do not wait for another one."""
        return [chore for chore in self.present if chore.running]

    def find(self, task_id: str | None) -> Chore | None:
        """The chore of this name."""
        return next((chore for chore in self.present if chore.task_id == task_id), None)


def progress_of(chore: Chore, head_start: float) -> dict[str, Any]:
    """What `/sdapi/v1/progress` answers while a chore is all that is done."""
    fraction = min(head_start + chore.fraction, 1.0)
    elapsed = time.time() - chore.began
    return {
        "progress": fraction,
        "eta_relative": elapsed / fraction - elapsed,
        "state": {
            "skipped": False,
            "interrupted": chore.stop.is_set(),
            "stopping_generation": False,
            "job": chore.kind,
            "job_count": 1,
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(chore.began)),
            "job_no": 0,
            "sampling_step": chore.done,
            "sampling_steps": chore.total,
        },
        "current_image": None,
        "textinfo": chore.text,
    }


def task_of(chore: Chore) -> dict[str, Any]:
    """What `/internal/progress` answers about a chore."""
    elapsed = time.time() - chore.began
    return {
        "active": chore.running,
        "queued": not chore.running,
        "completed": False,
        "progress": chore.fraction if chore.running else None,
        "eta": elapsed / chore.fraction - elapsed if chore.running and chore.fraction > 0 else None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": chore.text if chore.running else "Waiting...",
    }
