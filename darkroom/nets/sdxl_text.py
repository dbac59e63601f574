"""The text conditioning of Stable Diffusion XL and its refiner (Podell et al. 2023, arXiv:2307.01952, section 2): the
hidden states of one or two encoders side by side, and beside them a vector of the whole text and of some numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import CLIPTextModel
from darkroom.nets.open_clip import OpenClip, hidden_states, padded
from darkroom.nets.text import Asked, Batch, Encoded, Text, batches, emphasise

NUMBER_WIDTH = 256
"""Width of the embedding of one number."""


class Towers(nn.Module):
    """OpenCLIP's encoder `large`, and for the base model CLIP's `small` before it."""

    def __init__(self, small: CLIPTextModel | None, large: OpenClip) -> None:
        super().__init__()
        self.small = small
        self.large = large


class SdxlText:
    """The encoders of a base model or a refiner."""

    __slots__ = ("_towers",)

    def __init__(self, towers: Towers) -> None:
        self._towers = towers

    @property
    def module(self) -> Towers:
        """Holds the weights."""
        return self._towers

    @property
    def width(self) -> int:
        """Width of a token vector: that of CLIP and then that of OpenCLIP."""
        return self._small_width + int(self._towers.large.text.config.hidden_size)

    @property
    def _small_width(self) -> int:
        return 0 if self._towers.small is None else int(self._towers.small.config.hidden_size)

    def encode(self, texts: Sequence[Text], asked: Asked) -> Encoded:
        """Context `[T, 77 * n, width]` and vector `[T, pooled + 256 * numbers]`, float32.

        Negative texts that are all empty are zeros, but for the numbers. Only the first chunk makes the pooled part.
        """
        parts, pooled = zip(*(self._part(batch, asked) for batch in batches(texts, self._device)), strict=True)
        context, whole = torch.cat(parts, dim=1), pooled[0]
        if asked.all_empty:
            context, whole = torch.zeros_like(context), torch.zeros_like(whole)
        beside = embed_numbers(torch.tensor(asked.numbers, device=whole.device)).expand(len(whole), -1)
        return Encoded(context, torch.cat([whole, beside], dim=1))

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._towers.large.text.device
        return device

    def _part(self, batch: Batch, asked: Asked) -> tuple[Tensor, Tensor]:
        """Context `[T, 77, width]` and pooled vectors of one chunk of each text; emphasis acts on each encoder."""
        ids = padded(batch.ids)
        states = hidden_states(self._towers.large.text, ids, batch.insertions, self._small_width)
        context = emphasise(states[-2].float(), batch.weights, asked.emphasis)
        if self._towers.small is not None:
            context = torch.cat([self._small_part(self._towers.small, batch, asked), context], dim=2)
        return context, self._towers.large.pooled(states[-1], ids)

    def _small_part(self, model: CLIPTextModel, batch: Batch, asked: Asked) -> Tensor:
        # A1111: CLIP skip counts only with the option of this name, and then the very last layer is skip 1.
        skip = max(1, asked.clip_skip) if asked.sdxl_clip_l_skip else 2
        states = hidden_states(model, batch.ids, batch.insertions)
        return emphasise(states[-min(skip, len(states))].float(), batch.weights, asked.emphasis)


def embed_numbers(numbers: Tensor) -> Tensor:
    """One row `[1, 256 * N]` float32 of N numbers, each by cosines and then sines of it at 128 frequencies from 1 down
    to nearly 1/10000; Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    half = NUMBER_WIDTH // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=numbers.device))
    angles = numbers.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).reshape(1, -1)
