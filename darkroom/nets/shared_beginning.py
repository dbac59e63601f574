"""Rows of a batch that show a UNet the same latent at the same noise level, which a prompt and its negative one do, are
computed once up to where the text comes in.

Knows no guidance: which rows are alike is seen by their numbers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import UNet2DConditionModel


def find_first(x: Tensor, timesteps: Tensor) -> list[int]:
    """For every row of latents `[B, C, h, w]` and timesteps `[B]`, the first one that is equal to it."""
    found: list[int] = []
    for place in range(len(x)):
        alike = (one for one in dict.fromkeys(found) if _are_equal(x, timesteps, one, place))
        found.append(next(alike, place))
    return found


def _are_equal(x: Tensor, timesteps: Tensor, one: int, other: int) -> bool:
    return bool(timesteps[one] == timesteps[other]) and torch.equal(x[one], x[other])


@contextmanager
def shared_beginning(unet: UNet2DConditionModel, first: Sequence[int]) -> Iterator[None]:
    """The layers before the text compute the rows that are the `first` of their kind; the others get their answers.

    For UNets that are told of the text nowhere else.
    """
    apart = list(dict.fromkeys(first))
    if len(apart) == len(first):
        yield
        return
    rows, places = torch.tensor(apart), torch.tensor([apart.index(place) for place in first])

    def select(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_taken(part, rows) if isinstance(part, Tensor) else part for part in args)

    def spread(_: nn.Module, __: object, answer: Tensor) -> Tensor:
        return _taken(answer, places)

    hooks = []
    for layer in _before_the_text(unet):
        # Inside of all other hooks, which know the whole batch.
        hooks += [layer.register_forward_pre_hook(select), layer.register_forward_hook(spread, prepend=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _before_the_text(unet: UNet2DConditionModel) -> Iterator[nn.Module]:
    """Those that take most of the time. What lies between them computes all rows."""
    block = unet.down_blocks[0]
    yield unet.conv_in
    yield block.resnets[0]
    for transformer in list(getattr(block, "attentions", ()))[:1]:
        yield transformer.transformer_blocks[0].attn1


def _taken(x: Tensor, rows: Tensor) -> Tensor:
    """Some rows; pictures `[B, C, H, W]` in channels-last order."""
    if x.dim() == 4:
        return x.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return x.index_select(0, rows)
