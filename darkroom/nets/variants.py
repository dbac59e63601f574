"""Ways to run a network that leave its weights alone: pictures that tile, merged tokens. Each holds for one call."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import BasicTransformerBlock


@contextmanager
def tiled(module: nn.Module) -> Iterator[None]:
    """Every convolution sees the picture's opposite edge beyond its own, so that the result tiles."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        layer.padding_mode = "circular"
    try:
        yield
    finally:
        for layer in layers:
            layer.padding_mode = "zeros"


@contextmanager
def merged_tokens(unet: nn.Module, ratio: float, size: tuple[int, int]) -> Iterator[None]:
    """Self-attention at the latent's full resolution `size` (height, width) works on fewer tokens.

    The `ratio` of all tokens that resemble a neighbour most are averaged into it beforehand and take its answer
    afterwards: Bolya and Hoffman 2023, arXiv:2303.17604. Only blocks that see every latent pixel as a token take part.
    """
    hooks = []
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            merge = _Merge(ratio, size)
            # The resemblance is that of the block's input, which the first normalisation gets.
            hooks.append(block.norm1.register_forward_pre_hook(merge.match))
            hooks.append(block.attn1.register_forward_pre_hook(merge.join))
            hooks.append(block.attn1.register_forward_hook(merge.part))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Which tokens are averaged into which. All are places `[B, n, 1]`: `keep` and `source` among the sources, `into`
    among the destinations; `sources` and `destinations` `[n]` among all tokens.
    """

    sources: Tensor
    destinations: Tensor
    keep: Tensor
    source: Tensor
    into: Tensor

    def join(self, x: Tensor) -> Tensor:
        """Tokens `[B, N, C]` to the fewer ones: those kept, then the destinations."""
        sources, destinations = x[:, self.sources], x[:, self.destinations]
        joined = destinations.scatter_reduce(1, _wide(self.into, x), _take(sources, self.source), reduce="mean")
        return torch.cat([_take(sources, self.keep), joined], dim=1)

    def part(self, x: Tensor) -> Tensor:
        """Fewer tokens back to all of them."""
        kept, destinations = x[:, : self.keep.shape[1]], x[:, self.keep.shape[1] :]
        sources = x.new_empty(len(x), len(self.sources), x.shape[2])
        sources.scatter_(1, _wide(self.keep, x), kept)
        sources.scatter_(1, _wide(self.source, x), _take(destinations, self.into))
        whole = x.new_empty(len(x), len(self.sources) + len(self.destinations), x.shape[2])
        whole[:, self.sources], whole[:, self.destinations] = sources, destinations
        return whole


def match(x: Tensor, size: tuple[int, int], count: int) -> Matching:
    """Match tokens `[B, H * W, C]` by cosine: of every 2x2 cell the first is a destination, the others are sources; the
    `count` sources that resemble their best destination most go there.
    """
    sources, destinations = _cells(size, x.device)
    unit = x / x.norm(dim=-1, keepdim=True)
    likeness, best = (unit[:, sources] @ unit[:, destinations].transpose(1, 2)).max(dim=-1)
    order = likeness.argsort(dim=-1, descending=True)[..., None]
    count = min(count, len(sources))
    source, keep = order[:, :count], order[:, count:]
    return Matching(sources, destinations, keep, source, best[..., None].gather(1, source))


def _cells(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Places of the sources and of the destinations; a last odd row or column has sources only."""
    height, width = size
    first = torch.zeros(height, width, dtype=torch.bool, device=device)
    first[: height // 2 * 2 : 2, : width // 2 * 2 : 2] = True
    return (~first).flatten().nonzero()[:, 0], first.flatten().nonzero()[:, 0]


def _take(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, _wide(places, x))


def _wide(places: Tensor, x: Tensor) -> Tensor:
    return places.expand(-1, -1, x.shape[2])


class _Merge:
    """The matching of one block during one call."""

    def __init__(self, ratio: float, size: tuple[int, int]) -> None:
        self._ratio = ratio
        self._size = size
        self._matching: Matching | None = None

    def match(self, _: nn.Module, args: tuple[Tensor]) -> None:
        x = args[0]
        count = int(x.shape[1] * self._ratio)
        full = x.shape[1] == math.prod(self._size)
        self._matching = match(x, self._size, count) if full and count > 0 else None

    def join(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (self._matching.join(args[0]), *args[1:]) if self._matching else None

    def part(self, _: nn.Module, __: tuple[Tensor, ...], answer: Tensor) -> Tensor | None:
        return self._matching.part(answer) if self._matching else None
