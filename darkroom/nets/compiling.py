"""Forward passes that torch compiles for one form of inputs, in the background. Knows modules and tensors, no network.

Tracing runs on a copy of the module that has no weights, so that nothing which the device thread does to the module
meanwhile can get into it, and nobody else sees it happen. The weights are inputs of what is compiled: whoever calls it
passes those of the moment, adapters or not, and there is nothing that could have to be compiled again.

torch.compile is not used as it is: its front end may not be called by one thread while another compiles, which is what
this is for (torch 2.13, pytorch/pytorch#118260), and its CUDA graphs belong to threads.
"""

import copy
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from darkroom.nets.merging import Layer

log = logging.getLogger(__name__)

Pass = Callable[..., Tensor]
"""Applies a module, its first argument, to tensors `[B, ...]` and gives one `[B, ...]`."""

Run = Callable[..., Tensor]
"""What was compiled: takes all weights in the order of `Weights.now`, then the inputs."""

Build = Callable[[GraphModule, Sequence[Tensor]], Run]
"""Compiles operations for inputs like these, which have no numbers. May raise anything."""

Table = dict[str, nn.Parameter | None] | dict[str, Tensor | None]

DISAGREEMENT = 0.03
"""How far a compiled answer may lie from the eager one, as a share of its size (root mean square). Half precision with
sums in another order makes up to a hundredth in a whole UNet."""


class WrongAnswerError(Exception):
    """What was compiled does not answer as the module does."""


@dataclass(frozen=True, slots=True)
class Form:
    """All of a tensor but its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def empty(self) -> Tensor:
        """A tensor of this form."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)

    def random(self) -> Tensor:
        """Standard normals in this form."""
        return self.empty().copy_(torch.randn(self.shape, generator=torch.Generator().manual_seed(0)))


def form_of(x: Tensor) -> Form:
    """The form of a tensor."""
    return Form(tuple(x.shape), tuple(x.stride()), x.dtype, x.device)


class Weights:
    """A module's weights and buffers, whatever adapters have put in their place."""

    __slots__ = ("_biasless", "_places", "names")

    def __init__(self, module: nn.Module) -> None:
        self.names: list[str] = []
        self._places: list[tuple[Table, str]] = []
        self._biasless: list[Table] = []
        for path, part in module.named_modules():
            # The tables themselves: a UNet has over a thousand weights, and they are looked up at every pass.
            for table in (part._parameters, part._buffers):  # noqa: SLF001
                own = [name for name, weight in table.items() if weight is not None]
                self._places += [(table, name) for name in own]
                self.names += [f"{path}.{name}" if path else name for name in own]
            if isinstance(part, Layer) and part.bias is None:
                self._biasless.append(part._parameters)  # noqa: SLF001

    def now(self) -> list[Tensor]:
        """The tensors that are there now."""
        return [table[name] for table, name in self._places]  # type: ignore[misc]  # none of them was None

    def has_grown(self) -> bool:
        """Whether an adapter has given a layer a bias that had none."""
        return any(table["bias"] is not None for table in self._biasless)


class Shell(nn.Module):
    """A copy of a module without its weights, applied by a pass."""

    def __init__(self, module: nn.Module, apply: Pass) -> None:
        super().__init__()
        tensors = (*module.parameters(), *module.buffers())
        self.module = copy.deepcopy(module, {id(one): _without_numbers(one) for one in tensors})
        self._apply_to = apply

    def forward(self, *inputs: Tensor) -> Tensor:
        """The pass."""
        return self._apply_to(self.module, *inputs)

    def with_weights(self, names: Sequence[str], weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """The pass with these weights."""
        given = {f"module.{name}": weight for name, weight in zip(names, weights, strict=True)}
        answer: Tensor = torch.func.functional_call(self, given, tuple(inputs))
        return answer


def _without_numbers(x: Tensor) -> Tensor:
    empty = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(x, nn.Parameter) else empty


def compile_pass(
    shell: Shell, names: Sequence[str], weights: Sequence[Form], inputs: Sequence[Form], build: Build
) -> Run:
    """Trace a pass and compile it for weights and inputs of these forms. Raises what the compiler raises."""
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    without_numbers = FakeTensorMode()
    with without_numbers:
        examples = [form.empty() for form in (*weights, *inputs)]

    def apply(*tensors: Tensor) -> Tensor:
        return shell.with_weights(names, tensors[: len(names)], tensors[len(names) :])

    with torch.no_grad():
        with without_numbers:
            traced = make_fx(apply)(*examples)
        return build(traced, examples)


def inductor(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
    """What torch brings as its compiler. What it makes is kept in its cache folder, see `keep_compiled`."""
    from torch import _inductor

    compiled: Run = _inductor.compile(traced, list(examples))
    return compiled


def keep_compiled(folder: Path) -> None:
    """Have torch's compiler keep what it makes in a folder, unless the environment names another."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.absolute()))


def check(run: Run, shell: Shell, names: Sequence[str], weights: Sequence[Tensor], inputs: Sequence[Form]) -> None:
    """Run what was compiled for the first time, which loads its kernels. Raises WrongAnswerError.

    Numbers that are too large for their format say nothing, and nothing is made of them.
    """
    device = weights[0].device
    with torch.no_grad(), _own_stream(device):
        examples = [form.random() for form in inputs]
        found = run(*weights, *examples).float()
        expected = shell.with_weights(names, weights, examples).float()
        apart = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
        known = bool(expected.isfinite().all())
    if known and not apart <= DISAGREEMENT:
        raise WrongAnswerError(f"its answer is off by {apart:.1%}")


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, work beside the device thread's, on weights that are all there; done in the end."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()


class Compiler:
    """Has one pass at a time compiled by a thread. `threads` is how many of a processor it may use; 0 is all."""

    __slots__ = ("_lock", "_threads", "build")

    def __init__(self, build: Build = inductor, *, threads: int = 0) -> None:
        self.build = build
        self._threads = threads
        self._lock = Lock()

    @property
    def is_busy(self) -> bool:
        """Whether anything is being compiled."""
        return self._lock.locked()

    def start(self, what: str, work: Callable[[], None], failed: Callable[[], None]) -> bool:
        """Have the work done by a thread, or `failed` called; False if there is another one at it."""
        if not self._lock.acquire(blocking=False):
            return False
        Thread(target=self._do, args=(what, work, failed), name="compiling", daemon=True).start()
        return True

    @contextmanager
    def kept_off(self) -> Iterator[bool]:
        """Whether nothing is being compiled, which it then is not until the end."""
        alone = self._lock.acquire(blocking=False)
        try:
            yield alone
        finally:
            if alone:
                self._lock.release()

    def _do(self, what: str, work: Callable[[], None], failed: Callable[[], None]) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever a compiler stumbles over, eager goes on answering
            failed()
            log.warning("%s is not compiled: %s: %s", what, type(error).__name__, str(error)[:500])
        finally:
            self._lock.release()
