"""Muon: momentum whose matrices are made orthogonal before they move the weights.

Plain Adam moves a matrix mostly along the few directions that all pictures share; here rare objects' directions move as
fast. Knows matrices and nothing of the networks they belong to.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# The quintic of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): steep at 0, near 1 over the rest.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# An update then has the size that Adam's typically has (Liu et al. 2025, arXiv:2502.16982, eq. 4).
MATCH_ADAM = 0.2


def orthogonal(stack: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix of each of [K, rows, columns], singular values 0.7 to 1.2, in bf16."""
    x = stack.to(torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.mT
        factor = (gram @ gram).mul_(c).add_(gram, alpha=b)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        x = factor @ x
    found: Tensor = x.mT if tall else x
    return found


def as_matrix(weight: Tensor) -> Tensor:
    """A convolution's weight as [out, everything else]; the order of the columns does not matter."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight


def from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """The way back."""
    if like.dim() != 4:
        return matrix
    out, into, height, width = like.shape
    return matrix.reshape(out, height, width, into).permute(0, 3, 1, 2)


class Muon(torch.optim.Optimizer):
    """For weights of two and four dimensions; the others are Adam's."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 - torch's signature
        """One update; matrices of one shape are made orthogonal together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                momentum = state.setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                ahead = as_matrix(torch.lerp(weight.grad, momentum, group["momentum"]))
                shapes.setdefault(ahead.shape, []).append((weight, ahead))
            for shape, members in shapes.items():
                updates = orthogonal(torch.stack([ahead for _, ahead in members]))
                size = group["lr"] * MATCH_ADAM * max(shape) ** 0.5
                for (weight, _), update in zip(members, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(from_matrix(update, weight).to(weight.dtype), alpha=size)
