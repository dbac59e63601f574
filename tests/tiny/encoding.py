"""Texts as a network takes them, from bare tokens and weights."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from darkroom.nets.network import Network
from darkroom.nets.text import Asked, Chunks, Text, Weights


def encode_tokens(network: Network, tokens: Sequence[Chunks], weights: Sequence[Weights], **asked: Any) -> Tensor:
    """The conditioning `[T, 77 * n, width]` of texts in chunks."""
    texts = [Text(chunks=chunks, weights=factors) for chunks, factors in zip(tokens, weights, strict=True)]
    return network.encode_text(texts, Asked(**asked)).context
