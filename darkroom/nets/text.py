"""Tokens to conditioning: CLIP's text encoder with CLIP skip and emphasis. Knows no prompt syntax."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from darkroom.nets.tokenizer import BOS, CHUNK, EOS

Emphasis = Literal["None", "Ignore", "Original", "No norm"]
Chunks = Sequence[Sequence[int]]
Weights = Sequence[Sequence[float]]
Insertions = Sequence[Sequence[tuple[int, Tensor]]]
"""Of every chunk of a text: vectors `[n, width]` that stand in for the tokens from a place 0..76 on."""


def encode(
    model: CLIPTextModel,
    tokens: Sequence[Chunks],
    weights: Sequence[Weights],
    *,
    clip_skip: int = 1,
    emphasis: Emphasis = "Original",
    insertions: Sequence[Insertions] = (),
) -> Tensor:
    """Conditioning `[T, 77 * n, width]` float32 of T texts, each of up to n chunks of 77 tokens and as many weights.

    Shorter texts get empty chunks at their end. `clip_skip` k takes the k-th last layer, through the final layer norm.
    `insertions` are by text.
    """
    count = max(map(len, tokens))
    empty = [BOS] + [EOS] * (CHUNK - 1)
    ids = torch.tensor([[*chunks] + [empty] * (count - len(chunks)) for chunks in tokens], device=model.device)
    plain = [1.0] * CHUNK
    factors = torch.tensor([[*chunks] + [plain] * (count - len(chunks)) for chunks in weights], device=model.device)
    parts = []
    for k in range(count):
        inserted = [chunks[k] if k < len(chunks) else () for chunks in insertions]
        with _inserting(model.embeddings.token_embedding, inserted):
            hidden = _hidden(model, ids[:, k], clip_skip)
        parts.append(emphasise(hidden.float(), factors[:, k], emphasis))
    return torch.cat(parts, dim=1)


@contextmanager
def _inserting(table: nn.Module, insertions: Sequence[Sequence[tuple[int, Tensor]]]) -> Iterator[None]:
    """Have vectors stand in for tokens, text by text, before positions are added."""
    if not any(insertions):
        yield
        return

    def insert(_: nn.Module, __: object, vectors: Tensor) -> Tensor:
        changed = vectors.clone()
        for row, places in zip(changed, insertions, strict=True):
            for place, stand_in in places:
                row[place : place + len(stand_in)] = stand_in[: len(row) - place].to(row)
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
