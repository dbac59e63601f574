"""Which forward passes of a module are compiled: those of the shapes that are asked for most, when eager ones have
answered some. Knows rows and shapes, no network.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from darkroom.nets.compiling import Compiler, Form, Pass, Run, Shell, Weights, check, compile_pass, form_of
from darkroom.nets.cuda_graphs import Graphs, Recorder

log = logging.getLogger(__name__)

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Rows that passes are compiled for; other batches get further rows, which nobody looks at. The engine makes batches of
these sizes where it can."""

MOST_PADDING = 0.2
"""No larger share of the computed rows is padding: that is about what compiling brings (1.2 times as quick at published
rates), so that more would make it slower than eager."""

ASKED_BEFORE = 8
"""How often a shape is asked for before it is worth minutes of compilation: more often than for a single picture of few
steps."""

MOST_PASSES = 8
"""Compiled passes of one module. Another shape takes a place if it is asked for more often than that one was."""

MOST_SHAPES = 256
"""Shapes that are counted, those asked for last."""

RECORDED_ROWS = 4
"""Up to so many rows launching the kernels takes a GPU longer than computing them."""


@dataclass(frozen=True, slots=True)
class Key:
    """The number of rows, and what every input has per row."""

    rows: int
    inputs: tuple[tuple[tuple[int, ...], torch.dtype], ...]

    def forms(self, device: torch.device) -> list[Form]:
        """The inputs as they are passed: pictures channels-last, all else in plain order."""
        with torch.device("meta"):
            empty = [placed(torch.empty(self.rows, *shape, dtype=dtype)) for shape, dtype in self.inputs]
        return [Form(tuple(one.shape), tuple(one.stride()), one.dtype, device) for one in empty]

    def __str__(self) -> str:
        shapes = ", ".join("×".join(map(str, shape)) for shape, _ in self.inputs if shape)
        return f"{self.rows} rows of {shapes}"


def padded(rows: int) -> int | None:
    """How many rows are computed for so many; None if that would be too many more."""
    size = next((size for size in ROWS if size >= rows), None)
    return size if size and size - rows <= MOST_PADDING * size else None


def placed(x: Tensor) -> Tensor:
    """A tensor in the order that passes are compiled for."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


class Compiled:
    """A module's passes. All methods are the device thread's, but for what the compiler's thread hands over."""

    __slots__ = (
        "__weakref__", "_asked", "_compiler", "_failed", "_graphs", "_name", "_ready", "_recorded", "_shell",
        "_weights",
    )  # fmt: skip

    def __init__(
        self, compiler: Compiler, module: nn.Module, apply: Pass, name: str, *, recorded_rows: int = RECORDED_ROWS
    ) -> None:
        """The module has its weights, and nothing that is only there for one call. On a GPU, passes of no more than
        `recorded_rows` are launched at once.
        """
        self._compiler = compiler
        self._name = name
        self._recorded = recorded_rows
        self._weights = Weights(module)
        self._shell = Shell(module, apply)
        self._graphs: Graphs | None = None
        self._ready: dict[Key, _Ready] = {}
        self._failed: set[Key] = set()
        self._asked: Counter[Key] = Counter()

    def find_answer(self, *inputs: Tensor) -> Tensor | None:
        """The pass's answer for inputs of equally many rows on the module's device; None if eager is to give it."""
        rows = len(inputs[0])
        size = padded(rows)
        if size is None or self._weights.has_grown():
            return None
        key = Key(size, tuple((tuple(one.shape[1:]), one.dtype) for one in inputs))
        self._count(key)
        ready = self._ready.get(key)
        if ready is None:
            self._compile_next()
            return None
        weights = self._weights.now()
        addresses = [weight.data_ptr() for weight in weights]
        if not ready.fits(weights, addresses):
            return None
        full = [placed(_with_rows(one, size)) for one in inputs]
        if ready.recorder is None:
            return ready.run(*weights, *full)[:rows]
        with self._compiler.kept_off() as alone:
            return ready.recorder(weights, addresses, full, may_record=alone)[:rows]

    def _count(self, key: Key) -> None:
        self._asked[key] += 1
        if len(self._asked) > MOST_SHAPES:
            del self._asked[next(one for one in self._asked if one not in self._ready)]

    def _compile_next(self) -> None:
        """Have the shape compiled that was asked for most of those that are not."""
        if self._compiler.is_busy:
            return
        open_keys = [key for key in self._asked if key not in self._ready and key not in self._failed]
        key = max(open_keys, key=self._asked.__getitem__, default=None)
        if key is None or self._asked[key] < ASKED_BEFORE:
            return
        if len(self._ready) >= MOST_PASSES and self._asked[self._least_asked()] >= self._asked[key]:
            return
        forms = [form_of(weight) for weight in self._weights.now()]
        work = partial(_compile, ref(self), self._shell, self._weights.names, forms, key, self._compiler)
        self._compiler.start(f"{self._name}, {key},", work, partial(self._failed.add, key))

    def _least_asked(self) -> Key:
        return min(self._ready, key=self._asked.__getitem__)

    def hand_over(self, key: Key, run: Run, forms: Sequence[Form]) -> None:
        """From now on this answers. By the compiler's thread."""
        if len(self._ready) >= MOST_PASSES:
            del self._ready[self._least_asked()]
        recorder = None
        if forms[0].device.type == "cuda" and key.rows <= self._recorded:
            self._graphs = self._graphs or Graphs()
            recorder = Recorder(run, self._graphs.record)
        self._ready[key] = _Ready(run, forms, recorder)

    def current_weights(self) -> list[Tensor]:
        """The weights that are there now."""
        return self._weights.now()


class _Ready:
    """A compiled pass, the forms of the weights that it takes, and what launches it at once on a GPU."""

    __slots__ = ("_addresses", "_forms", "recorder", "run")

    def __init__(self, run: Run, forms: Sequence[Form], recorder: Recorder | None) -> None:
        self.run = run
        self.recorder = recorder
        self._forms = list(forms)
        self._addresses: Sequence[int] = ()

    def fits(self, weights: Sequence[Tensor], addresses: Sequence[int]) -> bool:
        """Whether weights have the forms that it was compiled for; those that lie where they lay have."""
        if addresses == self._addresses:
            return True
        if [form_of(weight) for weight in weights] != self._forms:
            return False
        self._addresses = addresses
        return True


def _with_rows(x: Tensor, rows: int) -> Tensor:
    """`[B, ...]` with its last row repeated up to so many."""
    return x if len(x) == rows else torch.cat([x, x[-1:].expand(rows - len(x), *x.shape[1:])])


def _compile(
    owner: ReferenceType[Compiled],
    shell: Shell,
    names: Sequence[str],
    forms: Sequence[Form],
    key: Key,
    compiler: Compiler,
) -> None:
    """Compile a pass and hand it over, unless the module is gone by then: it is not kept for this."""
    inputs = key.forms(forms[0].device)
    run = compile_pass(shell, names, forms, inputs, compiler.build)
    compiled = owner()
    if compiled is not None:
        check(run, shell, names, compiled.current_weights(), inputs)
        compiled.hand_over(key, run, forms)
        log.info("compiled: %s", key)
