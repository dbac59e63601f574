"""Models whose networks may lie in files of their own: where each network is, and how it is read from there.

Checkpoints of Stable Diffusion 3 and FLUX.1 are published whole, without text encoders, or as the denoiser alone. What
is not in the file is looked for in the folders of text encoders and autoencoders, by the names that people give it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from darkroom.errors import BadModelFile, MissingPart
from darkroom.nets import layout, t5
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.layout import Shapes
from darkroom.nets.libraries import AutoencoderKL, CLIPTextConfig, CLIPTextModel, T5EncoderModel
from darkroom.nets.opening import open_checkpoint
from darkroom.nets.tokenizer import BOS, EOS
from darkroom.nets.vae import build_vae

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One network of a model: what people call it, and a tensor by which a file is known to hold it.

    `channels` are that tensor's inputs, where networks of one kind differ by them. `inside` are the prefixes under
    which it lies in checkpoints, `stems` how the names of its own file begin, the best first, `home` the folder for it.
    """

    title: str
    mark: str
    inside: tuple[str, ...]
    stems: tuple[str, ...]
    home: str = "text_encoder"
    channels: int | None = None

    def find_prefix(self, shapes: Shapes, *, alone: bool = False) -> str | None:
        """Under which prefix a checkpoint, or a file of its own, holds this network."""
        prefixes = (*self.inside, "") if alone else self.inside
        return next((prefix for prefix in prefixes if self._fits(shapes.get(prefix + self.mark))), None)

    def rank(self, path: Path) -> int | None:
        """How well a file's name says that it is this network's, 0 best; None if it does not."""
        name = path.stem.lower()
        return next((rank for rank, stem in enumerate(self.stems) if _begins(name, stem)), None)

    def _fits(self, shape: tuple[int, ...] | None) -> bool:
        return shape is not None and (self.channels is None or shape[1:2] == (self.channels,))


def _begins(name: str, stem: str) -> bool:
    """Whether a name begins with these words, not merely with these letters."""
    return name.startswith(stem) and not name[len(stem) : len(stem) + 1].isalnum()


_CLIP = "text_model.embeddings.token_embedding.weight"

CLIP_L = Kind(
    title="CLIP text encoder (ViT-L)",
    mark=_CLIP,
    inside=("text_encoders.clip_l.transformer.",),
    stems=("clip_l", "clip-l", "vit-l-14"),
)
CLIP_G = Kind(
    title="CLIP text encoder (bigG)",
    mark=_CLIP,
    inside=("text_encoders.clip_g.transformer.",),
    stems=("clip_g", "clip-g"),
)
T5 = Kind(
    title="T5 text encoder (v1.1 XXL)",
    mark="encoder.block.0.layer.0.SelfAttention.q.weight",
    inside=("text_encoders.t5xxl.transformer.",),
    stems=("t5xxl_fp16", "t5xxl_bf16", "t5xxl", "t5-v1_1-xxl", "t5_xxl", "google_t5"),
)


def autoencoder(*stems: str) -> Kind:
    """An autoencoder of 16 channels whose own file has one of these names."""
    return Kind(
        title="autoencoder",
        mark="decoder.conv_in.weight",
        inside=("first_stage_model.", "vae."),
        stems=stems,
        home="VAE",
        channels=16,
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a network lies: in which file, under which prefix."""

    path: Path
    prefix: str


def find_place(kind: Kind, checkpoint: Checkpoint, folders: Sequence[Path]) -> Place | None:
    """Where a network is: in the checkpoint, else in a file of its own beside it or in one of the folders."""
    prefix = kind.find_prefix(checkpoint.shapes)
    if prefix is not None:
        return Place(checkpoint.path, prefix)
    beside = checkpoint.path.parent.glob("*")
    for path in _candidates(kind, chain(*(sorted(folder.rglob("*")) for folder in folders), sorted(beside))):
        with Checkpoint(path) as file:
            prefix = kind.find_prefix(file.shapes, alone=True)
        if prefix is not None and path != checkpoint.path:
            return Place(path, prefix)
    return None


def get_place(kind: Kind, checkpoint: Checkpoint, folders: Sequence[Path]) -> Place:
    """As `find_place`. Raises MissingPart, which names the file that is wanted and where."""
    place = find_place(kind, checkpoint, folders)
    if place is None:
        home = next((folder for folder in folders if folder.name == kind.home), Path("models") / kind.home)
        wanted = f"{kind.stems[0]}{SUFFIX}"
        raise MissingPart(f"{checkpoint.path.name}: has no {kind.title} in it; put {wanted} into {home}")
    return place


def _candidates(kind: Kind, paths: Iterable[Path]) -> list[Path]:
    """The files that are called like this network, those with the best names first."""
    named = [path for path in paths if path.suffix.lower() == SUFFIX and path.is_file()]
    ranked = [(rank, path) for path in named if (rank := kind.rank(path)) is not None]
    return [path for _, path in sorted(ranked, key=lambda pair: pair[0])]


@contextmanager
def opened(place: Place, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The file of a place: the open checkpoint, or one that is opened for it."""
    if place.path == checkpoint.path:
        yield checkpoint
        return
    with open_checkpoint(place.path) as file:
        file.vae_dtype, file.eight_bits = checkpoint.vae_dtype, checkpoint.eight_bits
        yield file


class PooledClip(nn.Module):
    """CLIP's text encoder with the matrix that makes one vector of a whole text, where that is of use."""

    def __init__(self, text: CLIPTextModel, projected: int | None = None) -> None:
        super().__init__()
        width = int(text.config.hidden_size)
        self.text = text
        self.text_projection = nn.Linear(width, projected, bias=False) if projected else None


def read_clip(
    checkpoint: Checkpoint, place: Place, device: torch.device, dtype: torch.dtype, *, large: bool = False
) -> PooledClip:
    """CLIP's encoder, or OpenCLIP's `large` one in transformers' layout. Raises BadModelFile, and KeyError for another
    layout.
    """
    with opened(place, checkpoint) as file:
        sizes = layout.clip_sizes(file.below(f"{place.prefix}text_model."))
        projected = None
        if large:
            sizes["hidden_act"] = "gelu"
            projected = file.shapes[f"{place.prefix}text_projection.weight"][0]
        with torch.device("meta"):
            text = CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=BOS, eos_token_id=EOS))
            model = PooledClip(text, projected)
        file.fill(model, lambda name: place.prefix + _clip_name(name), dtype, device)
    text.embeddings.position_ids = torch.arange(sizes["max_position_embeddings"], device=device)[None]
    return model.requires_grad_(False).eval()


def _clip_name(name: str) -> str:
    return f"text_model.{name.removeprefix('text.')}" if name.startswith("text.") else name


def read_t5(checkpoint: Checkpoint, place: Place, device: torch.device, dtype: torch.dtype) -> T5EncoderModel:
    """T5's encoder. Raises BadModelFile."""
    with opened(place, checkpoint) as file:
        shapes = file.below(place.prefix)
        try:
            model = t5.build_t5(t5.t5_sizes(shapes))
        except (KeyError, ValueError) as error:
            raise BadModelFile(f"{place.path.name}: not laid out like T5: {error}") from error
        source = t5.t5_source(shapes)
        file.fill(model, lambda name: place.prefix + source(name), dtype, device)
    model.shared.weight = model.encoder.embed_tokens.weight
    return model


def read_t5_later(place: Place, dtype: torch.dtype, device: torch.device, *, eight_bits: bool) -> T5EncoderModel:
    """T5's encoder from a file that is no longer open. Raises BadModelFile."""
    with open_checkpoint(place.path) as file:
        file.eight_bits = eight_bits
        return read_t5(file, place, device, dtype)


def read_vae(
    checkpoint: Checkpoint, place: Place, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> AutoencoderKL:
    """An autoencoder. Raises BadModelFile, and KeyError for another layout."""
    with opened(place, checkpoint) as file:
        sizes = layout.vae_sizes(file.below(place.prefix), config)
        source = layout.vae_source(len(sizes["block_out_channels"]))
        vae = build_vae(sizes)
        file.fill(vae, lambda name: f"{place.prefix}{source(name)}", dtype, device, is_autoencoder=True)
    return vae
