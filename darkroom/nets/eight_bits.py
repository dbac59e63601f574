"""Weights held in eight bits, each put into a wider format while its layer computes. Knows no network.

Half the memory of sixteen bits, for rounding each weight to four significant bits and for the time of the conversions.
"""

from collections.abc import Iterator

import torch
from torch import nn

EIGHT_BITS = torch.float8_e4m3fn
"""One sign bit, four of exponent, three of fraction: Micikevicius et al. 2022, arXiv:2209.05433, table 1."""

Held = nn.Linear | nn.Conv2d
"""Layers whose weights are held so."""


def held_in_eight_bits(module: nn.Module) -> Iterator[str]:
    """The names of the weights that may be held so: those of matrices and convolutions, which are nearly all."""
    for name, layer in module.named_modules():
        # T5 has what it applies this layer to put into the format of its weight.
        if isinstance(layer, Held) and not name.endswith("DenseReluDense.wo"):
            yield f"{name}.weight" if name else "weight"


def widen_in_use(module: nn.Module) -> None:
    """Have every layer whose weight is held in eight bits compute with it in the format of what it is applied to."""
    for layer in module.modules():
        if isinstance(layer, Held) and layer.weight.dtype == EIGHT_BITS:
            _widen_in_use(layer)


def _widen_in_use(layer: Held) -> None:
    held: list[nn.Parameter] = []

    def widen(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        weight = layer.weight
        assert isinstance(weight, nn.Parameter)
        held.append(weight)
        layer.weight = nn.Parameter(weight.to(args[0].dtype), requires_grad=False)

    def put_back(layer: nn.Module, *_: object) -> None:
        used, weight = layer.weight, held.pop()
        assert isinstance(used, nn.Parameter)
        # What a kernel has put into its own order stays so: that would take longer than the product, every time.
        is_reordered = used.shape != weight.shape
        layer.weight = nn.Parameter(used.to(EIGHT_BITS), requires_grad=False) if is_reordered else weight

    layer.register_forward_pre_hook(widen)
    layer.register_forward_hook(put_back, always_call=True)
