"""Hypernetworks: small modules that change what attention looks at, before its keys and values are made of it.

Reads their files and applies them for one call; knows nothing of prompts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.errors import BadModelFile
from darkroom.nets.libraries import Attention
from darkroom.nets.pickles import read_content

MAX_BYTES = 2 << 30

_OLD_NAMES = MappingProxyType({"linear1": "linear.0", "linear2": "linear.1"})

Activation = Callable[[], nn.Module]

_ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "relu": nn.ReLU,
        "leakyrelu": nn.LeakyReLU,
        "elu": nn.ELU,
        "swish": nn.Hardswish,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "hardswish": nn.Hardswish,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "mish": nn.Mish,
        "softplus": nn.Softplus,
        "softsign": nn.Softsign,
        "hardtanh": nn.Hardtanh,
        "relu6": nn.ReLU6,
        "selu": nn.SELU,
        "celu": nn.CELU,
        "softshrink": nn.Softshrink,
        "tanhshrink": nn.Tanhshrink,
        "hardsigmoid": nn.Hardsigmoid,
        "hardshrink": nn.Hardshrink,
        "logsigmoid": nn.LogSigmoid,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Hypernetwork:
    """A module for keys and one for values, by the width of what they change."""

    pairs: Mapping[int, tuple[nn.Module, nn.Module]]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        modules = (module for pair in self.pairs.values() for module in pair)
        return sum(weight.nbytes for module in modules for weight in module.parameters())


def read_hypernetwork(path: Path, device: torch.device, dtype: torch.dtype) -> Hypernetwork:
    """Read one file. Raises BadModelFile."""
    content = read_content(path, MAX_BYTES)
    try:
        pairs = {
            width: (_module(states[0], content, device, dtype), _module(states[1], content, device, dtype))
            for width, states in content.items()
            if isinstance(width, int)
        }
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadModelFile(f"{path.name}: not a hypernetwork: {error}") from error
    if not pairs:
        raise BadModelFile(f"{path.name}: holds no hypernetwork")
    return Hypernetwork(pairs)


def _module(
    state: Mapping[str, Tensor], notes: Mapping[Any, Any], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """Linear layers, behind each its activation and, where there is one, its norm. Dropout is for training alone."""
    weights = {_renamed(name): value for name, value in state.items()}
    activation = _activation(notes.get("activation_func"))
    places = sorted({int(name.split(".")[1]) for name in weights})
    if not places:
        raise ValueError("a side without layers")
    matrices = [place for place in places if weights[f"linear.{place}.weight"].dim() == 2]
    layers: list[nn.Module] = []
    for place in places:
        layers.append(_filled(weights[f"linear.{place}.weight"], weights[f"linear.{place}.bias"]))
        last = place == matrices[-1]
        if place in matrices and activation and (not last or notes.get("activate_output", True)):
            layers.append(activation())
    return nn.Sequential(*layers).to(device, dtype).requires_grad_(False).eval()


def _activation(name: object) -> Activation | None:
    if name is None or name == "linear":
        return None
    if not isinstance(name, str) or name.lower() not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {str(name)[:40]!r}")
    return _ACTIVATIONS[name.lower()]


def _filled(weight: Tensor, bias: Tensor) -> nn.Module:
    """A linear layer or a norm with these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0]) if weight.dim() == 2 else nn.LayerNorm(weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _renamed(name: str) -> str:
    head, _, tail = name.rpartition(".")
    return f"{_OLD_NAMES.get(head, head)}.{tail}"


@contextmanager
def hypernetworks(unet: nn.Module, chain: Sequence[tuple[Hypernetwork, float]]) -> Iterator[None]:
    """Every attention makes its keys and values of a changed context, by each hypernetwork in turn at its strength."""
    hooks = []
    for attention in unet.modules():
        if isinstance(attention, Attention):
            for number, projection in enumerate((attention.to_k, attention.to_v)):
                hooks.append(projection.register_forward_pre_hook(_changing(chain, number)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _changing(chain: Sequence[tuple[Hypernetwork, float]], number: int) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    def change(_: nn.Module, args: tuple[Tensor]) -> Tensor:
        context = args[0]
        for hypernetwork, strength in chain:
            pair = hypernetwork.pairs.get(context.shape[-1])
            if pair is not None:
                context = context + pair[number](context) * strength
        return context

    return change
