"""CLIP: which of some texts fits a picture best (Radford et al. 2021, arXiv:2103.00020), from files on this disk alone.

The model is a folder as transformers publishes openai/clip-vit-large-patch14; the texts are lines of files, a file for
each category.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from darkroom.errors import BadModelFile
from darkroom.nets.describers.configuration import read_object, sizes
from darkroom.nets.describers.pictures import normalised, squared
from darkroom.nets.libraries import CLIPConfig, CLIPModel
from darkroom.nets.pickles import read_state_dict
from darkroom.nets.tokenizer import BOS, CHUNK, EOS, ClipTokenizer

FOLDER = "CLIP"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MAX_BYTES = 16 << 30
MAX_LIST_BYTES = 16 << 20
SHARPNESS = 100.0
"""What cosines are multiplied by before they become shares."""

BATCH = 64
"""Texts that are encoded at once."""

_TOP = re.compile(r"\.top(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """Texts of one kind, the best `top` of which are wanted."""

    name: str
    lines: tuple[str, ...]
    top: int = 1


def read_categories(folders: Iterable[Path], left_out: Sequence[str], limit: int) -> list[Category]:
    """The categories of the first folder that has any: `artists.txt`, or `flavors.top3.txt` for the best three.

    The first `limit` lines count, all if 0. Raises BadModelFile.
    """
    for folder in folders:
        files = sorted(folder.glob("*.txt"))
        if files:
            return list(_categories((path for path in files if path.stem not in left_out), limit))
    return []


def _categories(files: Iterable[Path], limit: int) -> Iterator[Category]:
    for path in files:
        try:
            if path.stat().st_size > MAX_LIST_BYTES:
                raise BadModelFile(f"{path.name}: larger than {MAX_LIST_BYTES} bytes")
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadModelFile(f"{path.name}: cannot be read: {error}") from error
        top = _TOP.search(path.stem)
        kept = tuple(lines[:limit] if limit > 0 else lines)
        if kept:
            yield Category(name=path.stem, lines=kept, top=min(int(top[1]) if top else 1, len(kept)))


@dataclass(frozen=True, slots=True, eq=False)
class Ranker:
    """The network on its device, with its words."""

    model: CLIPModel
    words: ClipTokenizer

    def encode_picture(self, picture: Image.Image) -> Tensor:
        """What CLIP sees in a picture, `[1, width]` of length 1."""
        side = self.model.config.vision_config.image_size
        seen = normalised(squared(picture, side)).to(self.model.device, self.model.dtype)
        return _unit(self.model.visual_projection(self.model.vision_model(pixel_values=seen[None]).pooler_output))

    def encode_texts(self, lines: Sequence[str]) -> Tensor:
        """What CLIP understands of some texts, `[lines, width]` of length 1 each."""
        rows = [[BOS, *self.words.tokenize(line)[: CHUNK - 2], EOS] for line in lines]
        longest = max(map(len, rows))
        # The original fills up to 77 with 0; the network looks at the end mark and at nothing behind it.
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        hidden = self.model.text_model(input_ids=ids).last_hidden_state
        ends = torch.tensor([len(row) - 1 for row in rows], device=hidden.device)
        return _unit(self.model.text_projection(hidden[torch.arange(len(rows), device=hidden.device), ends]))


def best(image: Tensor, texts: Tensor, category: Category) -> list[tuple[str, float]]:
    """The texts of a category that fit an encoded picture best, and their shares (0..1) of what all of it get."""
    shares = torch.softmax(SHARPNESS * image @ texts.T, dim=-1)[0]
    values, places = shares.topk(category.top)
    return [(category.lines[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]


def _unit(vectors: Tensor) -> Tensor:
    return normalize(vectors.float(), dim=-1)


def find_ranker(folder: Path) -> Path | None:
    """The weights in the folder of models."""
    place = folder / FOLDER
    folders = [path for path in (place, *sorted(place.glob("*"))) if (path / "config.json").is_file()]
    return next((path / name for path in folders for name in WEIGHTS if (path / name).is_file()), None)


def load_ranker(path: Path, device: torch.device, dtype: torch.dtype) -> Ranker:
    """Load the network of a file that `find_ranker` found. Raises BadModelFile."""
    content = read_object(path.with_name("config.json"))
    projection = content.get("projection_dim")
    width = projection if type(projection) is int and projection > 0 else 768
    try:
        made = CLIPConfig(
            text_config=sizes(content, "text_config"),
            vision_config=sizes(content, "vision_config"),
            projection_dim=width,
        )
    except ValueError as error:
        raise BadModelFile(f"{path.parent.name}/config.json: is not CLIP's: {str(error).splitlines()[0]}") from error
    with torch.device("meta"):
        model = CLIPModel(made)
    weights = read_state_dict(path, MAX_BYTES)
    found = {name: weights[name].to(device, dtype) for name in model.state_dict() if name in weights}
    try:
        model.load_state_dict(found, assign=True)
    except RuntimeError as error:
        raise BadModelFile(f"{path.name}: does not fit: {' '.join(str(error).split())[:300]}") from error
    for part in (model.text_model, model.vision_model):
        table = part.embeddings.position_embedding
        part.embeddings.position_ids = torch.arange(table.num_embeddings, device=device)[None]
    return Ranker(model.requires_grad_(False).eval(), ClipTokenizer())
