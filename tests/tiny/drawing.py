"""Pictures by a whole engine."""

import asyncio

from darkroom.engine.client import result
from darkroom.engine.local import LocalEngine
from darkroom.jobs.spec import JobSpec, Picture


def draw(engine: LocalEngine, *specs: JobSpec) -> list[Picture]:
    """The first picture of each job, all asked for at once."""

    async def all_of() -> list[Picture]:
        events = await asyncio.gather(*[result(engine, engine.submit(one)) for one in specs])
        return [event.pictures[0].picture for event in events]

    return asyncio.run(all_of())
