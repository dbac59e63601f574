"""Models in diffusers' layout: a folder with `model_index.json`, and a subfolder with weights for each network.

Knows where files lie and under which names single-file checkpoints have the same tensors, so that whoever builds a
network needs to know of those alone. Reads headers; no torch.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from darkroom.errors import BadModelFile
from darkroom.nets import flux_layout, layout, open_clip_layout, sd3_layout
from darkroom.nets.folder_config import INDEX, read_json
from darkroom.nets.headers import read_header
from darkroom.nets.layout import Part, Source

_STEMS = ("diffusion_pytorch_model", "model")
_VARIANTS = ("", ".fp32", ".non_ema", ".bf16", ".fp16")
"""What weights are called, the best first."""

_TEXT_MODEL = "text_model."
_TOKENS = "embeddings.token_embedding.weight"

_LAYERS = "cond_stage_model.model.transformer.resblocks."
_COUNTED = re.compile(r".*\.position_ids")
"""What older files store and nobody needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor of one of the folder's files."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a single file's tensor, from `start` up to `stop`: those of a tensor of the folder from `first` on.

    With `turned` the folder's matrix is the transpose.
    """

    start: int
    stop: int
    stored: Stored
    first: int = 0
    turned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the folder's tensor as a single file has it."""
        return self.stored.shape[::-1] if self.turned else self.stored.shape


def is_folder(path: Path) -> bool:
    """Whether this is a model in diffusers' layout."""
    return (path / INDEX).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Every file that a model's weights lie in, in a fixed order. Raises OSError."""
    return sorted(path for path in folder.glob("*/*") if path.suffix == ".safetensors")


def state_of(path: Path) -> tuple[int, int]:
    """Bytes, and when they last changed in nanoseconds: of a file, or of all files with weights in a folder. Raises
    OSError.
    """
    if not path.is_dir():
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    stats = [file.stat() for file in (path / INDEX, *weight_files(path))]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def read_folder(folder: Path) -> dict[str, list[Piece]]:
    """The tensors that a single file of this model would have, each with its pieces. Raises BadModelFile."""
    try:
        found: dict[str, list[Piece]] = {}
        for part, make in _networks(folder):
            stored = _stored(folder / part)
            names = make(stored)
            for name, tensor in stored.items():
                _place(found, tensor, names(name))
        _complete(found)
        return {key: sorted(pieces, key=lambda piece: piece.start) for key, pieces in found.items()}
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadModelFile(f"{folder.name}: not a model in diffusers' layout that can be read: {error!r}") from error


def shape_of(pieces: list[Piece]) -> tuple[int, ...]:
    """The shape of the tensor that pieces make up."""
    shape = pieces[0].shape
    return shape if len(pieces) == 1 else (pieces[-1].stop, *shape[1:])


def _place(found: dict[str, list[Piece]], tensor: Stored, place: str | Part) -> None:
    rows = tensor.shape[0] if tensor.shape else 1
    key, ranges = (place.key, place.ranges) if isinstance(place, Part) else (place, ())
    if key.endswith(".text_projection"):
        # OpenCLIP multiplies by this matrix from the other side.
        found[key] = [Piece(0, tensor.shape[1], tensor, turned=True)]
        return
    first = 0
    for start, stop in ranges or ((0, rows),):
        found.setdefault(key, []).append(Piece(start, stop, tensor, first))
        first += stop - start
    if first != rows:
        raise ValueError(f"{tensor.name} does not fit its place {key}")


def _complete(found: dict[str, list[Piece]]) -> None:
    """Give OpenCLIP of Stable Diffusion 2 its last layer back: no picture needs it, and folders leave it out. What
    goes into it counts, so that any will do.
    """
    layers = {int(key.removeprefix(_LAYERS).split(".")[0]) for key in found if key.startswith(_LAYERS)}
    if layers:
        last = f"{_LAYERS}{max(layers)}."
        copies = {key.replace(last, f"{_LAYERS}{max(layers) + 1}."): pieces for key, pieces in found.items()}
        found |= {key: pieces for key, pieces in copies.items() if key not in found}


def _networks(folder: Path) -> Iterator[tuple[str, Callable[[Mapping[str, Stored]], Source]]]:
    """The subfolders with networks that are used, and what makes their tensors' names."""
    parts = {path.name for path in folder.iterdir() if path.is_dir()}
    if "transformer" in parts:
        yield from _transformers(folder, parts)
        return
    if "unet" not in parts or not parts & {"text_encoder", "text_encoder_2"}:
        raise ValueError("it has no unet or no text encoder")
    config = read_json(folder / "unet" / "config.json")
    yield "unet", lambda stored: _unet_names(stored, config)
    yield "vae", _vae_places
    yield from _texts(folder, parts)


def _transformers(folder: Path, parts: set[str]) -> Iterator[tuple[str, Callable[[Mapping[str, Stored]], Source]]]:
    """Of Stable Diffusion 3 and FLUX.1. Their text encoders are called alike in both layouts; the largest may lack."""
    config = read_json(folder / "transformer" / "config.json")
    kind = str(config.get("_class_name"))
    if kind not in _DENOISERS:
        raise ValueError(f"its transformer is {kind[:60]!r}, which is not known")
    source, texts = _DENOISERS[kind]
    placed = sd3_layout.under("model.diffusion_model.", source(config))
    yield "transformer", lambda _: placed
    yield "vae", _vae_places
    for part, text in texts.items():
        if part in parts:
            yield part, _text_names(f"text_encoders.{text}.transformer.", is_clip=text.startswith("clip"))


_DENOISERS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Source], Mapping[str, str]]] = MappingProxyType(
    {
        "SD3Transformer2DModel": (
            sd3_layout.sd3_source,
            {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"},
        ),
        "FluxTransformer2DModel": (
            flux_layout.flux_source, {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"},
        ),
    }
)  # fmt: skip


def _text_names(prefix: str, *, is_clip: bool) -> Callable[[Mapping[str, Stored]], Source]:
    def name(own: str) -> str:
        # Newer folders leave out what CLIP's layers lie below.
        lacking = is_clip and not own.startswith((_TEXT_MODEL, "text_projection."))
        return f"{prefix}{_TEXT_MODEL}{own}" if lacking else prefix + own

    return lambda _: name


def _unet_names(stored: Mapping[str, Stored], config: Mapping[str, Any]) -> Source:
    layers = config.get("layers_per_block", 2)
    if not isinstance(layers, int):
        raise TypeError("layers_per_block must be one number")
    source = layout.unet_source(_UpBlocks(stored, layers), layers)
    # Networks here have diffusers' class embedding for the vector that theirs adds to the time.
    return lambda name: "model.diffusion_model." + source(name.replace("add_embedding.", "class_embedding.", 1))


class _UpBlocks:
    """Says of the convolutions that enlarge whether they stand behind an attention, as their names in a file do."""

    def __init__(self, stored: Iterable[str], layers: int) -> None:
        self._names = frozenset(stored)
        self._layers = layers

    def __contains__(self, name: object) -> bool:
        found = re.fullmatch(r"output_blocks\.(\d+)\.2\.conv\.weight", str(name))
        level = (int(found[1]) - self._layers) // (self._layers + 1) if found else -1
        return f"up_blocks.{level}.attentions.0.norm.weight" in self._names


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_FIRST_OF_VAE = "encoder.down_blocks.0.resnets.0.conv1.weight"


def vae_names(names: Container[str]) -> Callable[[str], str] | None:
    """What a single file calls the weights of an autoencoder in diffusers' layout, given all its names; None for one
    in another layout.
    """
    if _FIRST_OF_VAE not in names:
        return None
    levels = sum(f"encoder.down_blocks.{i}.resnets.0.conv1.weight" in names for i in range(16))
    source = layout.vae_source(levels)

    def name(own: str) -> str:
        *head, module, leaf = own.split(".")
        return source(".".join([*head, _OLD_ATTENTION.get(module, module), leaf]))

    return name


def _vae_places(stored: Mapping[str, Stored]) -> Source:
    names = vae_names(stored)
    if names is None:
        raise ValueError("its autoencoder is of an unknown layout")
    return lambda name: "first_stage_model." + names(name)


def _texts(folder: Path, parts: set[str]) -> Iterator[tuple[str, Callable[[Mapping[str, Stored]], Source]]]:
    """The text encoders. CLIP's own is called alike in both layouts, OpenCLIP's is not."""
    if {"text_encoder", "text_encoder_2"} <= parts:
        yield "text_encoder", lambda _: _clip("conditioner.embedders.0.transformer.")
        yield "text_encoder_2", lambda stored: _open_clip("conditioner.embedders.1.model.", stored)
    elif "text_encoder_2" in parts:
        yield "text_encoder_2", lambda stored: _open_clip("conditioner.embedders.0.model.", stored)
    else:
        yield "text_encoder", _open_clip_of_sd2 if _is_open_clip(folder / "text_encoder") else _clip_of_sd1


def _is_open_clip(part: Path) -> bool:
    """Whether a model's one text encoder is OpenCLIP's: it bends numbers another way than CLIP."""
    config = part / "config.json"
    return config.is_file() and read_json(config).get("hidden_act") == "gelu"


def _open_clip_of_sd2(stored: Mapping[str, Stored]) -> Source:
    return _open_clip("cond_stage_model.model.", stored)


def _clip_of_sd1(_: Mapping[str, Stored]) -> Source:
    return _clip("cond_stage_model.transformer.")


def _clip(prefix: str) -> Source:
    return lambda name: f"{prefix}{_TEXT_MODEL}{name.removeprefix(_TEXT_MODEL)}"


def _open_clip(prefix: str, stored: Mapping[str, Stored]) -> Source:
    width = next(tensor.shape[1] for name, tensor in stored.items() if name.endswith(_TOKENS))
    source = open_clip_layout.source(prefix, width)

    def place(name: str) -> str | Part:
        if name == "text_projection.weight":
            return source("projection")
        return source(name.removeprefix(_TEXT_MODEL))

    return place


# Files.


def _files(part: Path) -> list[Path]:
    """The files that hold a network's weights: one, or several with an index; none if the folder holds no weights."""
    for variant in _VARIANTS:
        for stem in _STEMS:
            whole = part / f"{stem}{variant}.safetensors"
            if whole.is_file():
                return [whole]
            index = part / f"{stem}.safetensors.index{variant}.json"
            if index.is_file():
                names = sorted(set(read_json(index)["weight_map"].values()))
                return [part / _plain(name) for name in names]
    return []


def _plain(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name):
        raise ValueError(f"an index names {str(name)[:60]!r}, which is no file beside it")
    return name


def _stored(part: Path) -> dict[str, Stored]:
    files = _files(part)
    if not files:
        raise ValueError(f"{part.name} has no .safetensors file")
    found: dict[str, Stored] = {}
    for file in files:
        header, _ = read_header(file)
        for name, entry in header.items():
            if name != "__metadata__" and not _COUNTED.fullmatch(name):
                shape = tuple(map(int, entry["shape"]))
                found[name] = Stored(file=file, name=name, shape=shape, kind=str(entry["dtype"]))
    return found
