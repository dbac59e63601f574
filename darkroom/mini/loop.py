"""One training loop for every stage: budget, learning rate, averaged weights, checkpoints, progress.

A stage brings its network, a loss of (step) and what to do now and then. All randomness of a step comes from the seed
and the step's number, so a run that was stopped and resumed gives the weights of one that was not.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from darkroom.mini.muon import Muon

T = TypeVar("T")
Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a stage ends: after so many minutes of training, or after so many steps where a test needs exactness."""

    minutes: float = 10.0
    steps: int | None = None

    def progress(self, step: int, elapsed_s: float) -> float:
        """0 at the start, 1 when the budget is used up."""
        if self.steps is not None:
            return min(1.0, step / max(1, self.steps))
        return min(1.0, elapsed_s / max(1e-9, self.minutes * 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a stage trains."""

    name: str
    out: Path
    budget: Budget
    seed: int = 0
    peak_lr: float = 5e-4
    final_lr: float = 0.03  # of the peak
    warmup_steps: int = 100
    hold: float = 0.0  # the share of the budget for which the rate stays at its peak
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    clip: float = 1.0
    slower: tuple[tuple[str, float], ...] = ()  # parameters whose name begins so learn at this share of the rate
    muon: bool = False  # for the inner matrices
    checkpoint_s: float = 180.0
    report_s: float = 20.0
    sheet_s: float = 480.0
    stop_after_steps: int | None = None  # a test's interruption


@dataclass(slots=True, kw_only=True)
class State:
    """All that a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    step: int = 0
    elapsed_s: float = 0.0
    recent: list[float] = field(default_factory=list)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 where the arithmetic is; weights and loss stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def step_rng(seed: int, step: int, purpose: int = 0) -> np.random.Generator:
    """The generator of one step: independent of every other step."""
    return np.random.default_rng([seed, step, purpose])


def torch_rng(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """The same for torch, always on the CPU, so that a GPU run draws the same numbers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step, purpose]).generate_state(1)[0]))


def prefetch(make: Callable[[int], T], first: int, ahead: int = 3) -> Generator[T, None, None]:
    """make(first), make(first + 1), … prepared by one thread beside the training."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(make, first + k) for k in range(ahead)]
        upcoming = first + ahead
        while True:
            ready = waiting.pop(0)
            waiting.append(pool.submit(make, upcoming))
            upcoming += 1
            yield ready.result()


def learning_rate(plan: Plan, step: int, progress: float) -> float:
    """Linear warm-up, the peak, then a cosine down to a small share of it."""
    falling = max(0.0, progress - plan.hold) / (1 - plan.hold)
    cosine = 0.5 * (1 + math.cos(math.pi * falling))
    warm = min(1.0, (step + 1) / plan.warmup_steps)
    return plan.peak_lr * warm * (plan.final_lr + (1 - plan.final_lr) * cosine)


def parameter_groups(network: nn.Module, plan: Plan, inner: bool) -> list[dict[str, Any]]:
    """The inner matrices, which Muon may move, or all others, by weight decay and share of the learning rate."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decayed = parameter.dim() > 1 and "embed" not in name
        at_an_end = not decayed or any(end in name for end in (".conv_in.", ".conv_out.", "quant_conv."))
        if inner == (at_an_end or not plan.muon):
            continue
        scale = next((share for prefix, share in plan.slower if name.startswith(prefix)), 1.0)
        groups.setdefault((decayed, scale), []).append(parameter)
    return [
        {"params": members, "weight_decay": plan.weight_decay if decayed else 0.0, "scale": scale}
        for (decayed, scale), members in groups.items()
    ]


def new_optimizers(network: nn.Module, plan: Plan) -> Iterator[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), and Muon where the plan wants it."""
    yield torch.optim.AdamW(parameter_groups(network, plan, False), lr=plan.peak_lr, betas=(0.9, 0.99), fused=True)
    if plan.muon:
        yield Muon(parameter_groups(network, plan, True), lr=plan.peak_lr)


def new_state(network: nn.Module, plan: Plan) -> State:
    """A fresh start: no decay for norms, biases and embeddings."""
    average = copy.deepcopy(network).requires_grad_(False)
    return State(network=network, average=average, optimizers=tuple(new_optimizers(network, plan)))


def checkpoint_path(plan: Plan) -> Path:
    """Where the stage keeps its state."""
    return plan.out / f"{plan.name}.pt"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Whoever reads the file sees the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    write(beside)
    beside.replace(path)


def save(state: State, plan: Plan) -> None:
    """Writes the checkpoint of the stage."""
    content = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "step": state.step,
        "elapsed_s": state.elapsed_s,
    }
    write_atomically(checkpoint_path(plan), lambda path: torch.save(content, path))


def restore(state: State, plan: Plan) -> bool:
    """Reads the checkpoint into the state, if there is one."""
    path = checkpoint_path(plan)
    if not path.exists():
        return False
    content = torch.load(path, map_location="cpu", weights_only=True)
    state.network.load_state_dict(content["network"])
    state.average.load_state_dict(content["average"])
    for optimizer, kept in zip(state.optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    state.step, state.elapsed_s = content["step"], content["elapsed_s"]
    return True


@torch.no_grad()
def update_average(state: State, decay: float) -> None:
    """Moves the averaged weights; early on faster, so that the random start is soon forgotten."""
    rate = 1 - min(decay, (1 + state.step) / (10 + state.step))
    averages: list[Tensor] = [p.detach() for p in state.average.parameters()]
    torch._foreach_lerp_(averages, [p.detach() for p in state.network.parameters()], rate)


def rank() -> int:
    """This process's number among those that train together; 0 when it trains alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def share_gradients(network: nn.Module) -> None:
    """Replaces every gradient by its mean over the processes."""
    if world() == 1:
        return
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat)
    flat.div_(world())
    parts = torch.split(flat, [grad.numel() for grad in grads])
    torch._foreach_copy_(grads, [part.view(grad.shape) for part, grad in zip(parts, grads, strict=True)])


def agree_on_time(elapsed_s: float) -> float:
    """The first process's clock, so that all end at the same step."""
    if world() == 1:
        return elapsed_s
    clock = torch.tensor([elapsed_s], dtype=torch.float64)
    dist.broadcast(clock, 0)
    return float(clock)


def train_step(state: State, plan: Plan, loss: Tensor, progress: float) -> float:
    """One update from a loss; a step whose gradient is not finite is left out."""
    for group in (group for optimizer in state.optimizers for group in optimizer.param_groups):
        group["lr"] = learning_rate(plan, state.step, progress) * group["scale"]
    state.network.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    share_gradients(state.network)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), plan.clip)
    if torch.isfinite(norm):
        for optimizer in state.optimizers:
            optimizer.step()
        update_average(state, plan.ema_decay)
    state.step += 1
    return float(loss.detach())


def say(plan: Plan, line: str) -> None:
    """The progress line, and the one-line status file beside the checkpoints."""
    stamped = f"{time.strftime('%H:%M:%S', time.gmtime())} {plan.name} {line}"
    print(stamped, flush=True)
    (plan.out / "STATUS").write_text(stamped + "\n")


def run(
    state: State,
    plan: Plan,
    make_batch: Callable[[int], Batch],
    loss_of: Callable[[int, Batch, float], tuple[Tensor, int]],
    draw_sheet: Callable[[State], None] | None = None,
) -> State:
    """Trains until the budget is used up; `loss_of(step, batch, progress)` answers the loss and the samples it saw."""
    plan.out.mkdir(parents=True, exist_ok=True)
    batches = prefetch(make_batch, state.step)
    marks = {"save": time.monotonic(), "say": time.monotonic(), "sheet": time.monotonic()}
    samples, losses = 0, list[float]()
    people = world()
    while (progress := plan.budget.progress(state.step, state.elapsed_s)) < 1:
        began = time.monotonic()
        loss, count = loss_of(state.step, next(batches), progress)
        losses.append(train_step(state, plan, loss, progress))
        samples += count * people
        now = time.monotonic()
        state.elapsed_s = agree_on_time(state.elapsed_s + now - began)
        if plan.stop_after_steps is not None and state.step >= plan.stop_after_steps:
            break
        if rank() != 0:
            continue
        if now - marks["say"] > plan.report_s:
            rate = samples / (now - marks["say"])
            mean = sum(losses) / len(losses)
            say(plan, f"step {state.step} {progress:.1%} loss {mean:.4f} {rate:.1f} samples/s")
            marks["say"], samples, losses = now, 0, []
        if now - marks["save"] > plan.checkpoint_s:
            save(state, plan)
            marks["save"] = time.monotonic()
        if draw_sheet is not None and now - marks["sheet"] > plan.sheet_s:
            draw_sheet(state)
            marks["sheet"] = time.monotonic()
    batches.close()
    if rank() == 0:
        save(state, plan)
    return state


def together(workers: int, job: Callable[[], None], folder: Path) -> None:
    """Runs the job in `workers` processes of one thread each, whose gradients are averaged.

    On a shared machine that beats one process of many threads: those wait for each other at every operation, and each
    wait lasts a time slice of whoever else computes. These meet once a step.
    """
    if workers <= 1:
        job()
        return
    meeting = folder / ".meeting"
    meeting.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = (workers, job, str(meeting.resolve()))
    start_processes(_join, args=arguments, nprocs=workers, start_method="fork")  # type: ignore[no-untyped-call]


def _join(rank_here: int, workers: int, job: Callable[[], None], meeting: str) -> None:
    torch.set_num_threads(1)
    if hasattr(os, "setsid"):
        os.setsid()  # Linux shares the processor out by session, so each worker gets its own share
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank_here, world_size=workers)
    job()
    dist.destroy_process_group()
