"""Text to conditioning: CLIP's byte pairs, and its encoder with CLIP skip and emphasis. Knows no prompt syntax."""

import html
import json
import re
import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import CLIPTextModel

BOS = 49406
EOS = 49407
CHUNK = 77

Emphasis = Literal["None", "Ignore", "Original", "No norm"]
Chunks = Sequence[Sequence[int]]
Weights = Sequence[Sequence[float]]

# Contractions, words, single digits, the rest: the published tokenizer of Radford et al. 2021, arXiv:2103.00020.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_CONTROLS = re.compile(r"\x1b\[[\d;]*[A-Za-z]|[\x00-\x08\x0b\x0e-\x1f\x7f\u200b-\u200f\ufeff]")
_PLAIN = {
    **dict.fromkeys(map(ord, "\u02bc\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict(zip(range(0xFB00, 0xFB07), ("ff", "fi", "fl", "ffi", "ffl", "st", "st"), strict=True)),
    0x3000: " ",
}


class ClipTokenizer:
    """CLIP's byte-pair encoding, lower-cased; the vocabulary comes with the package."""

    __slots__ = ("_tokenizer",)

    def __init__(self, folder: Traversable | None = None) -> None:
        """Read `vocab.json` and `merges.txt` from the folder; None takes the package's own."""
        folder = files("darkroom") / "nets" / "data" / "clip_tokenizer" if folder is None else folder
        self._tokenizer = _byte_pairs(folder)

    def tokenize(self, text: str) -> list[int]:
        """Token ids without the special ones at either end, and without truncation."""
        ids: list[int] = self._tokenizer.encode(clean(text), add_special_tokens=False).ids
        return ids


def clean(text: str) -> str:
    """Plain quotes, ligatures and full-width letters; no entities, controls or runs of white space; NFC, lower case.

    A1111: the original runs ftfy over the text first; this has its rules except the repair of wrongly decoded text.
    """
    if "<" not in text:
        text = html.unescape(text)
    text = unicodedata.normalize("NFC", _CONTROLS.sub("", text).translate(_PLAIN))
    return " ".join(text.split()).lower()


def _byte_pairs(folder: Traversable) -> Tokenizer:
    vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [
        (left, right) for left, _, right in (line.partition(" ") for line in lines) if right and left != "#version:"
    ]
    end = next(word for word, number in vocabulary.items() if number == EOS)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix="</w>", unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([word for word, number in vocabulary.items() if number in (BOS, EOS)])
    return tokenizer


def encode(
    model: CLIPTextModel,
    tokens: Sequence[Chunks],
    weights: Sequence[Weights],
    *,
    clip_skip: int = 1,
    emphasis: Emphasis = "Original",
) -> Tensor:
    """Conditioning `[T, 77 * n, width]` float32 of T texts, each of up to n chunks of 77 tokens and as many weights.

    Shorter texts get empty chunks at their end. `clip_skip` k takes the k-th last layer, through the final layer norm.
    """
    count = max(map(len, tokens))
    empty = [BOS] + [EOS] * (CHUNK - 1)
    ids = torch.tensor([[*chunks] + [empty] * (count - len(chunks)) for chunks in tokens], device=model.device)
    plain = [1.0] * CHUNK
    factors = torch.tensor([[*chunks] + [plain] * (count - len(chunks)) for chunks in weights], device=model.device)
    parts = [emphasise(_hidden(model, ids[:, k], clip_skip).float(), factors[:, k], emphasis) for k in range(count)]
    return torch.cat(parts, dim=1)


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
