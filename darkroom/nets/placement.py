"""Networks that take turns on a small device: one part of them is there, the others wait in main memory.

Knows modules and devices, and nothing of what they compute. What waits is not copied back: its weights have stayed in
main memory all the time, and those on the device were a copy.
"""

from collections.abc import Callable, Iterator
from typing import Literal
from weakref import ref

import torch
from torch import Tensor, nn

Tier = Literal["whole", "parts", "blocks"]
"""What is on the device at a time: all of a checkpoint; its text encoders, its denoiser or its autoencoder; or, instead
of the denoiser, one of the blocks that it is built of."""

HOME = torch.device("cpu")

Send = Callable[[Tensor, torch.device], Tensor]


def send(weight: Tensor, device: torch.device) -> Tensor:
    """A copy on another device."""
    return weight.to(device)


class Turns:
    """Modules of which one at a time has its weights on `device`. `tier_of` tells which families' do so, and how."""

    __slots__ = ("_away", "_present", "_send", "device", "tier_of")

    def __init__(
        self, device: torch.device, tier_of: Callable[[str], Tier] = lambda _: "parts", send: Send = send
    ) -> None:
        self.device = device
        self.tier_of = tier_of
        self._send = send
        self._present: Callable[[], nn.Module | None] = lambda: None
        self._away: list[tuple[nn.Parameter, Tensor]] = []
        """The weights of the present module that are on the device, with what they are at home."""

    def take(self, module: nn.Module) -> None:
        """Have this module's weights on the device, and nobody else's."""
        if self._present() is module:
            return
        self.leave()
        for weight in module.parameters():
            self._away.append((weight, weight.data))
            weight.data = self._send(weight.data, self.device)
        self._present = ref(module)

    def leave(self) -> None:
        """Have nobody's weights on the device."""
        module = self._present()
        self._present = lambda: None
        kept = {id(weight) for weight, _ in self._away}
        for weight, at_home in self._away:
            weight.data = at_home
        self._away.clear()
        for weight in module.parameters() if module else ():
            if id(weight) not in kept:  # adapters were merged meanwhile
                weight.data = self._send(weight.data, HOME)


def send_buffers(module: nn.Module, device: torch.device) -> None:
    """Have what is no weight on the device for good: it is small."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device))


def let_blocks_take_turns(denoiser: nn.Module, turns: Turns) -> None:
    """Have every block of a denoiser take its turn when it is reached; all else of it goes to the device and stays."""
    blocks = list(blocks_of(denoiser))
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    for weight in denoiser.parameters():
        if id(weight) not in inside:
            weight.data = weight.data.to(turns.device)
    for block in blocks:
        block.register_forward_pre_hook(lambda block, _: turns.take(block))


def blocks_of(denoiser: nn.Module) -> Iterator[nn.Module]:
    """What a UNet or a transformer is built of, in the order of use."""
    for name in ("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "single_transformer_blocks"):
        found = getattr(denoiser, name, None)
        if isinstance(found, nn.ModuleList):
            yield from found
        elif isinstance(found, nn.Module):
            yield found
