"""CLIP's byte pairs: text to token ids and nothing else. No torch."""

import html
import json
import re
import unicodedata
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

BOS = 49406
EOS = 49407
CHUNK = 77

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
        self._tokenizer = _own() if folder is None else _byte_pairs(folder)

    @property
    def spellings(self) -> dict[str, int]:
        """Every token by how it is spelt; `</w>` marks the end of a word."""
        return self._tokenizer.get_vocab()

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


@cache
def _own() -> Tokenizer:
    """The package's own, which takes a tenth of a second to read and never changes."""
    return _byte_pairs(files("darkroom") / "nets" / "data" / "clip_tokenizer")


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
