"""Tokens to conditioning: what text encoders have in common, and CLIP's with CLIP skip and emphasis. Knows no prompt
syntax.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import CLIPTextModel
from darkroom.nets.tokenizer import BOS, CHUNK, EOS

Emphasis = Literal["None", "Ignore", "Original", "No norm"]
Chunks = Sequence[Sequence[int]]
Weights = Sequence[Sequence[float]]
Insertion = tuple[int, Tensor]
"""Vectors `[n, width]` that stand in for the tokens from a place 0..76 on, all encoders' side by side."""

Insertions = Sequence[Sequence[Insertion]]
"""Those of every chunk of a text."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Text:
    """A text in chunks of 77 tokens with as many weights, and the text itself in weighted pieces, for encoders with a
    tokenizer of their own.
    """

    chunks: Chunks
    weights: Weights
    insertions: Insertions = ()
    pieces: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How texts are to be encoded, beyond what they say.

    `clip_skip` k takes the k-th last layer. `numbers` are what some models are told beside the text, each embedded on
    its own. `all_empty` negative texts are zeros for some models. `sdxl_clip_l_skip` has `clip_skip` act where it
    otherwise would not. `t5` has the third encoder count for the models that can do without.
    """

    clip_skip: int = 1
    emphasis: Emphasis = "Original"
    all_empty: bool = False
    numbers: tuple[float, ...] = ()
    sdxl_clip_l_skip: bool = False
    t5: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """`context` `[T, 77 * n, width]` of T texts, and beside it `vector` `[T, V]` for the models that want one."""

    context: Tensor
    vector: Tensor | None = None


class TextEncoder(Protocol):
    """All text encoders of a checkpoint together. `module` holds their weights, `width` is that of a token vector."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def width(self) -> int: ...

    def encode(self, texts: Sequence[Text], asked: Asked) -> Encoded:
        """Encode texts together; shorter ones get empty chunks at their end."""
        ...


class ClipText:
    """CLIP's text encoder as Stable Diffusion 1.x uses it: the last layer, or one before it, normalised."""

    __slots__ = ("_model",)

    def __init__(self, model: CLIPTextModel) -> None:
        self._model = model

    @property
    def module(self) -> nn.Module:
        """Holds the weights."""
        module: nn.Module = self._model
        return module

    @property
    def width(self) -> int:
        """Width of a token vector."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[Text], asked: Asked) -> Encoded:
        """Conditioning `[T, 77 * n, width]` float32. `asked.clip_skip` k takes the k-th last layer, through the final
        layer norm.
        """
        model, parts = self._model, []
        for batch in batches(texts, model.device):
            with inserting(model.embeddings.token_embedding, batch.insertions):
                hidden = _hidden(model, batch.ids, asked.clip_skip)
            parts.append(emphasise(hidden.float(), batch.weights, asked.emphasis))
        return Encoded(torch.cat(parts, dim=1))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The n-th chunks of some texts: token `ids` and `weights` `[T, 77]`, and what stands in for some tokens."""

    ids: Tensor
    weights: Tensor
    insertions: Sequence[Sequence[Insertion]]


def batches(texts: Sequence[Text], device: torch.device) -> Iterator[Batch]:
    """The chunks of texts that are encoded together; shorter texts get empty ones at their end."""
    empty, plain = [BOS] + [EOS] * (CHUNK - 1), [1.0] * CHUNK
    for k in range(max(len(text.chunks) for text in texts)):
        yield Batch(
            torch.tensor([text.chunks[k] if k < len(text.chunks) else empty for text in texts], device=device),
            torch.tensor([text.weights[k] if k < len(text.weights) else plain for text in texts], device=device),
            [text.insertions[k] if k < len(text.insertions) else () for text in texts],
        )


@contextmanager
def inserting(table: nn.Module, insertions: Sequence[Sequence[Insertion]], first: int = 0) -> Iterator[None]:
    """Have vectors stand in for tokens, text by text, before positions are added: of each vector as many numbers, from
    the `first` on, as this encoder takes.
    """
    if not any(insertions):
        yield
        return

    def insert(_: nn.Module, __: object, vectors: Tensor) -> Tensor:
        changed = vectors.clone()
        for row, places in zip(changed, insertions, strict=True):
            for place, stand_in in places:
                own = stand_in[: len(row) - place, first : first + row.shape[1]]
                row[place : place + len(own)] = own.to(row)
        return changed

    hook = table.register_forward_hook(insert)
    try:
        yield
    finally:
        hook.remove()


def emphasise(z: Tensor, weights: Tensor, emphasis: Emphasis) -> Tensor:
    """Multiply `z` `[T, 77, width]` by `weights` `[T, 77]`; "Original" then restores the mean over all elements."""
    # A1111: the mean runs over all texts together, but over each chunk apart.
    if emphasis in ("None", "Ignore"):
        return z
    weighted = z * weights[..., None]
    return weighted if emphasis == "No norm" else weighted * (z.mean() / weighted.mean())


def _hidden(model: CLIPTextModel, ids: Tensor, clip_skip: int) -> Tensor:
    """The hidden state `[T, 77, width]` that `clip_skip` names, normalised."""
    if clip_skip <= 1:
        last: Tensor = model(input_ids=ids).last_hidden_state
        return last
    states: tuple[Tensor, ...] = model(input_ids=ids, output_hidden_states=True).hidden_states
    normalised: Tensor = model.final_layer_norm(states[-min(clip_skip, len(states))])
    return normalised
