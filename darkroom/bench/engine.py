"""Darkroom's engine in this process, asked without HTTP."""

import asyncio
import atexit
import time
from pathlib import Path
from threading import Thread
from typing import Any

from darkroom.api.convert import to_spec
from darkroom.api.models import Txt2Img
from darkroom.bench.orders import Order
from darkroom.bench.subjects import START_LIMIT_S, NotHereError
from darkroom.engine.catalogue import Catalogue
from darkroom.engine.local import LocalEngine
from darkroom.jobs.spec import JobSpec
from darkroom.options.store import Options
from darkroom.settings import Settings


class Engine:
    """An engine whose only checkpoint is the one that is told. May be asked from any thread."""

    def __init__(self, told: dict[str, Any]) -> None:
        """Start it and wait until it is ready. Raises NotHereError."""
        folder = Path(told["folder"])
        self._settings = Settings(
            device=told["device"],
            threads=told["threads"],
            ckpt=Path(told["path"]),
            data_dir=folder,
            models_dir=folder / "no-models",
            no_hashing=True,
            **told["options"],
        )
        self._catalogue = Catalogue(self._settings)
        self._engine = LocalEngine(self._settings)
        atexit.register(self._engine.close)
        self._checkpoints = self._engine.checkpoints()
        self._options = Options(None, {"sd_model_checkpoint": self._checkpoints[0].path})
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True).start()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not self._engine.ready():
            if time.monotonic() > deadline:
                raise NotHereError(f"the engine is not ready after {START_LIMIT_S:.0f} s: see its log")
            time.sleep(0.05)

    def draw(self, order: Order) -> None:
        """Have a picture made, and wait for its pixels."""
        asyncio.run_coroutine_threadsafe(self._draw(self._spec(order)), self._loop).result()

    def is_compiling(self) -> bool:
        """Whether a network is being compiled."""
        return self._engine.is_compiling()

    async def _draw(self, spec: JobSpec) -> None:
        last = None
        async for event in self._engine.events(self._engine.submit(spec)):
            last = event
        if last is None or last.error or not last.pictures:
            raise RuntimeError(f"no picture came: {last and last.error}")

    def _spec(self, order: Order) -> JobSpec:
        asked = Txt2Img.model_validate(order.as_request())
        values = self._options.snapshot()
        return to_spec(asked, values, self._settings, self._checkpoints, self._catalogue.small).spec
