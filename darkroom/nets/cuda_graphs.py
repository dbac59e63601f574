"""Passes whose kernels are launched all at once: CUDA graphs. Knows tensors and addresses, no network.

A graph repeats what was recorded on the same addresses. So inputs are copied to where they were, and it counts only for
weights that lie where they lay. A small batch takes a GPU less time than Python takes to launch its kernels one by one.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Run = Callable[..., Tensor]

Replay = Callable[[Sequence[Tensor]], Tensor]
"""Answers inputs of the same form as those that were recorded with."""

Record = Callable[[Run, Sequence[Tensor], Sequence[Tensor]], Replay]
"""Records a pass on weights and inputs. May raise RuntimeError."""

RECORDED_AFTER = 8
"""Calls in a row with the same weights, before these are worth a recording: adapters may take turns."""

WARMING = 3


class Recorder:
    """Calls a pass, or replays it once its weights have stayed where they are for some calls."""

    __slots__ = ("_addresses", "_calls", "_record", "_replay", "_run")

    def __init__(self, run: Run, record: Record) -> None:
        self._run = run
        self._record: Record | None = record
        self._replay: Replay | None = None
        self._addresses: Sequence[int] = ()
        self._calls = 0

    def __call__(
        self, weights: Sequence[Tensor], addresses: Sequence[int], inputs: Sequence[Tensor], *, may_record: bool
    ) -> Tensor:
        """The answer for inputs and weights, which lie at these addresses. `may_record` if nobody else uses the GPU."""
        if addresses != self._addresses:
            self._addresses, self._calls, self._replay = addresses, 0, None
        self._calls += 1
        if self._replay is None and self._record and self._calls > RECORDED_AFTER and may_record:
            self._try_to_record(weights, inputs)
        return self._replay(inputs) if self._replay else self._run(*weights, *inputs)

    def _try_to_record(self, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        assert self._record
        try:
            self._replay = self._record(self._run, weights, inputs)
        except RuntimeError as error:  # torch's errors of CUDA, and memory that was not enough
            self._record = None
            log.warning("kernels are launched one by one: no graph can be recorded: %s", str(error)[:300])


class Graphs:
    """Records CUDA graphs whose intermediate results share memory: only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def record(self, run: Run, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Replay:
        """Record a pass on the present device. Raises RuntimeError, torch.OutOfMemoryError among them."""
        held = [one.clone() for one in inputs]
        present = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            for _ in range(WARMING):  # libraries allocate what they need at their first calls
                run(*weights, *held)
        present.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on calling CUDA: what they do is no part of this.
        with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
            answer = run(*weights, *held)

        def replay(inputs: Sequence[Tensor]) -> Tensor:
            for place, given in zip(held, inputs, strict=True):
                place.copy_(given, non_blocking=True)
            graph.replay()
            return answer.clone()

        return replay
