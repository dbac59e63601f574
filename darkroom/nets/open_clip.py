"""OpenCLIP's text encoders (Cherti et al. 2022, arXiv:2212.07143), and the conditioning that Stable Diffusion 2 makes
of one. They are CLIP's but for their activation; their files stack the rows of queries, keys and values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import CLIPTextConfig, CLIPTextModel
from darkroom.nets.text import Asked, Batch, Encoded, Insertion, Text, batches, emphasise, inserting
from darkroom.nets.tokenizer import BOS, EOS


class OpenClip(nn.Module):
    """The encoder, and the matrix `[width, width']` that makes one vector of a whole text, where it is of use."""

    projection: nn.Parameter | None

    def __init__(self, sizes: Mapping[str, Any], projected: int | None = None) -> None:
        super().__init__()
        self.text = CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=BOS, eos_token_id=EOS))
        shape = sizes["hidden_size"], projected or 0
        self.projection = nn.Parameter(torch.empty(shape)) if projected else None

    def pooled(self, last: Tensor, ids: Tensor) -> Tensor:
        """One vector `[T, width']` of each text: the normalised last layer `[T, 77, width]` at the first end token."""
        assert self.projection is not None
        at_end: Tensor = self.text.final_layer_norm(last)[torch.arange(len(ids)), ids.argmax(dim=1)]
        return (at_end @ self.projection).float()


def hidden_states(
    model: CLIPTextModel, ids: Tensor, insertions: Sequence[Sequence[Insertion]], first: int = 0
) -> tuple[Tensor, ...]:
    """What goes into every layer, and last what comes out of the last one, not normalised: `[T, 77, width]` each.

    `first` is where this encoder's numbers begin in the vectors that stand in for tokens.
    """
    with inserting(model.embeddings.token_embedding, insertions, first):
        states: tuple[Tensor, ...] = model(input_ids=ids, output_hidden_states=True).hidden_states
    return states


def padded(ids: Tensor) -> Tensor:
    """Token ids `[T, 77]` as OpenCLIP has them: zeros behind the first end token."""
    ended = (ids == EOS).cumsum(dim=1)
    return ids.masked_fill((ended > 1) | ((ended == 1) & (ids != EOS)), 0)


class OpenClipText:
    """What Stable Diffusion 2 uses of an encoder: what goes into the last layer, normalised."""

    __slots__ = ("_module",)

    def __init__(self, module: OpenClip) -> None:
        self._module = module

    @property
    def module(self) -> OpenClip:
        """Holds the weights."""
        return self._module

    @property
    def width(self) -> int:
        """Width of a token vector."""
        return int(self._module.text.config.hidden_size)

    def encode(self, texts: Sequence[Text], asked: Asked) -> Encoded:
        """Conditioning `[T, 77 * n, width]` float32."""
        model = self._module.text
        return Encoded(torch.cat([self._part(batch, asked) for batch in batches(texts, model.device)], dim=1))

    def _part(self, batch: Batch, asked: Asked) -> Tensor:
        # A1111: CLIP skip has no effect here.
        model = self._module.text
        z = model.final_layer_norm(hidden_states(model, padded(batch.ids), batch.insertions)[-2])
        return emphasise(z.float(), batch.weights, asked.emphasis)
