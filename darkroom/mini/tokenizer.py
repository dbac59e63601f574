"""Builds the CLIP tokenizer's two data files from the vocabulary that the open_clip package carries.

    python -m darkroom.mini.tokenizer OPEN_CLIP_WHEEL_OR_PACKAGE [FOLDER]

The files are the same byte for byte on every run. Also reads them back for the training.
"""

import argparse
import gzip
import json
import zipfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from darkroom.mini.loop import write_atomically
from darkroom.nets.libraries import CLIPTokenizer

FOLDER = Path(__file__).parents[1] / "nets" / "data" / "clip_tokenizer"
MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
VOCABULARY = 49408
START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77

NOTICE = """\
vocab.json and merges.txt in this folder are the byte pair encoding vocabulary of CLIP
(https://github.com/openai/CLIP, bpe_simple_vocab_16e6.txt.gz), written in the two-file form by
`python -m darkroom.mini.tokenizer`. CLIP is distributed under the following licence.

MIT License

Copyright (c) 2021 OpenAI

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def byte_symbols() -> list[str]:
    """One printable character for each byte, in CLIP's order: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + k) for k in range(len(others))]


def read_merges(source: Path) -> list[str]:
    """The merges that CLIP uses, `left right` each, from a wheel or from an unpacked package.

    Raises:
        FileNotFoundError: there is no vocabulary in the source.
    """
    if source.is_file():
        with zipfile.ZipFile(source) as wheel:
            packed = wheel.read(MEMBER)
    else:
        found = sorted(source.rglob(Path(MEMBER).name))
        if not found:
            raise FileNotFoundError(f"{source}: holds no {Path(MEMBER).name}")
        packed = found[0].read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    # The first line is a version; CLIP cuts the rest so that the vocabulary has exactly its size.
    return lines[1 : VOCABULARY - 512 - 2 + 1]


def vocabulary(merges: Sequence[str]) -> dict[str, int]:
    """Bytes, bytes that end a word, merged pairs, start and end: numbered in this order."""
    symbols = byte_symbols()
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(m.split()) for m in merges), START, END]
    return {word: number for number, word in enumerate(words)}


def build(source: Path, folder: Path = FOLDER) -> None:
    """Writes vocab.json, merges.txt and NOTICE."""
    merges = read_merges(source)
    files = {
        "vocab.json": json.dumps(vocabulary(merges), ensure_ascii=False, separators=(",", ":")) + "\n",
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "NOTICE": NOTICE,
    }
    for name, text in files.items():
        write_atomically(folder / name, partial(Path.write_bytes, data=text.encode("utf-8")))


@cache
def load(folder: Path = FOLDER) -> CLIPTokenizer:
    """The tokenizer, from the shipped files."""
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def encode(captions: Sequence[str]) -> list[list[int]]:
    """Token ids of each caption, padded to 77 with the end token."""
    encoded = load()(list(captions), padding="max_length", truncation=True, max_length=LENGTH)
    return [list(row) for row in encoded["input_ids"]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Builds the CLIP tokenizer's files.")
    parser.add_argument("source", type=Path, help="open_clip_torch-*.whl or the folder of the package")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    arguments = parser.parse_args()
    build(arguments.source, arguments.folder)


if __name__ == "__main__":
    main()
