"""T5's text encoder: text to token ids, its sizes from the tensors of a file, token ids to vectors.

Knows nothing of prompts' syntax or of the models that read its vectors. Raffel et al. 2020, arXiv:1910.10683; the
gated form of version 1.1 (Shazeer 2020, arXiv:2002.05202).
"""

import gzip
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from darkroom.nets.layout import Shapes
from darkroom.nets.libraries import T5Config, T5EncoderModel

PAD = 0
EOS = 1

BREAK = ("BREAK", -1.0)
"""The piece of a prompt that ends a chunk of CLIP's. There are no chunks here."""

_SHARED = "shared.weight"
_TIED = "encoder.embed_tokens.weight"
_BLOCK = "encoder.block.0.layer."


class T5Tokenizer:
    """T5's unigram pieces; the vocabulary comes with the package."""

    __slots__ = ("_tokenizer",)

    def __init__(self) -> None:
        path = files("darkroom") / "nets" / "data" / "t5_tokenizer" / "tokenizer.json.gz"
        self._tokenizer = Tokenizer.from_str(gzip.decompress(path.read_bytes()).decode())

    def tokenize(self, text: str) -> list[int]:
        """Token ids without the one that ends a text, and without truncation."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def weigh(self, pieces: Sequence[tuple[str, float]]) -> Iterator[tuple[int, float]]:
        """The token ids of a prompt's weighted pieces, each piece by itself, with their weights."""
        for text, weight in pieces:
            if (text, weight) != BREAK:
                yield from ((token, weight) for token in self.tokenize(text))


def framed(ids: Sequence[int], length: int) -> list[int]:
    """Exactly `length` ids: cut or padded, with the one that ends a text behind the last that is left."""
    kept = [*ids[: length - 1], EOS]
    return kept + [PAD] * (length - len(kept))


def t5_sizes(shapes: Shapes) -> dict[str, Any]:
    """Arguments of transformers' T5Config. Raises KeyError if the tensors are no such encoder."""
    vocabulary, width = shapes[_SHARED if _SHARED in shapes else _TIED]
    buckets, heads = shapes[_BLOCK + "0.SelfAttention.relative_attention_bias.weight"]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shapes[_BLOCK + "0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes[_BLOCK + "1.DenseReluDense.wi_0.weight"][0],
        "num_layers": sum(f"encoder.block.{i}.layer.0.layer_norm.weight" in shapes for i in range(128)),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
    }


def build_t5(sizes: dict[str, Any]) -> T5EncoderModel:
    """An encoder of these sizes without weights, on the meta device."""
    with torch.device("meta"):
        model = T5EncoderModel(T5Config(**sizes))
    return model.requires_grad_(False).eval()


def t5_source(shapes: Shapes) -> Callable[[str], str]:
    """The file's name of a T5EncoderModel weight: files hold its token table once, under either name."""
    table = _SHARED if _SHARED in shapes else _TIED
    return lambda name: table if name in (_SHARED, _TIED) else name


def encode(model: T5EncoderModel, ids: Sequence[Sequence[int]]) -> Tensor:
    """Vectors `[T, L, width]` float32 of T texts of L token ids each. Padding is read like any other token."""
    vectors: Tensor = model(input_ids=torch.tensor(ids, device=model.device)).last_hidden_state
    return vectors.float()
