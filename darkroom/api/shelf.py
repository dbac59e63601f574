"""`/models`: every file of weights that can be chosen, in one shape, with the picture and the words that lie beside it.

Knows names and small files. Opens no weights.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from stat import S_ISDIR
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from darkroom.api.checkpoints import choose_checkpoint
from darkroom.api.context import Context, Shared
from darkroom.api.upscaling import offered
from darkroom.errors import UnknownName
from darkroom.images.upscale import BUILT_IN
from darkroom.jobs.networks import lack_of
from darkroom.options.values import OptionValues

router = APIRouter(prefix="/models", tags=["lists"])

Kind = Literal["checkpoint", "lora", "embedding", "hypernetwork", "vae", "upscaler", "face-restorer"]

_LONGEST_TEXT = 100_000
"""Bytes of a text beside a model; a longer file is something else."""

_LONGEST_HEADER = 50_000_000
"""Bytes of a file's header; a longer one is no header."""

_PICTURES_KEY = "ssmd_cover_images"

_PREVIEWS = tuple(form + ending for ending in (".png", ".jpg", ".jpeg", ".webp", ".gif") for form in ("", ".preview"))
"""How the name of a preview goes on after the model's. A1111: in this order."""


class ModelDocument(BaseModel):
    """Something with weights."""

    kind: str = Field(description="checkpoint, lora, embedding, hypernetwork, vae, upscaler or face-restorer.")
    name: str = Field(description="What requests, prompts and options call it.")
    title: str = Field(description="The name for people: an alias, or the name with the hash.")
    filename: str | None = Field(description="Path of its file; null where there is none.")
    bytes: int | None = Field(description="Size of the file.")
    modified_at: float | None = Field(description="When the file was last changed, Unix time.")
    hash: str | None = Field(description="The short hash that generation texts tell, once it is known.")
    preview: str | None = Field(description="Path of the picture beside the file.")
    insert: str | None = Field(description="What a prompt must hold to use it; null for what no prompt names.")
    description: str = Field(description="The text beside the file.")
    activation_text: str = Field(description="Words that it was trained to answer to.")
    native_size: int | None = Field(
        description="Pixels of the side of the pictures that a checkpoint was made for; null for all else."
    )
    in_use: bool = Field(description="Whether every request uses it that names no other.")
    usable: bool = Field(description="Whether it fits the checkpoint in use and its file is there.")
    lack: str | None = Field(description="Why it is not usable, in words.")


class _Beside:
    """What lies beside models. Each folder is looked into once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, str]] = {}

    def preview(self, file: Path) -> str | None:
        """The path under which this server shows a model's picture."""
        found = self._find(file, _PREVIEWS)
        if found is None:
            return None
        changed = int(_stat(found)[1] or 0)
        return "/sd_extra_networks/thumb?" + urlencode({"filename": str(found), "mtime": changed})

    def description(self, file: Path) -> str:
        """The text beside a model, or the one in its JSON."""
        text = _read(self._find(file, (".txt", ".description.txt")))
        if text:
            return text
        try:
            notes = json.loads(_read(self._find(file, (".json",))) or "{}")
        except (ValueError, RecursionError):
            return ""
        words = notes.get("description") if isinstance(notes, dict) else None
        return words if isinstance(words, str) else ""

    def _find(self, file: Path, endings: tuple[str, ...]) -> Path | None:
        names = self._names(file.parent)
        # A folder of weights may have a dot in its name; all else ends after the last one.
        stem = file.stem if file.suffix else file.name
        wanted = (stem + ending for ending in endings)
        return next((file.parent / names[name.lower()] for name in wanted if name.lower() in names), None)

    def _names(self, folder: Path) -> dict[str, str]:
        """The names in a folder, by themselves in small letters."""
        if folder not in self._folders:
            try:
                names = [entry.name for entry in folder.iterdir()]
            except OSError:
                names = []
            self._folders[folder] = {name.lower(): name for name in names}
        return self._folders[folder]


@router.get("", operation_id="list_models")
def list_models(
    context: Shared,
    kind: Annotated[list[Kind] | None, Query(description="Only models of these kinds.")] = None,
) -> list[ModelDocument]:
    """Models of every kind, each kind in the order of its menu."""
    beside, values = _Beside(), context.options.snapshot()
    return [
        _document(beside, name_of_kind, fields)
        for name_of_kind, rows in _ROWS.items()
        if not kind or name_of_kind in kind
        for fields in rows(context, values)
    ]


@router.get("/metadata", operation_id="get_model_metadata")
def get_metadata(
    context: Shared,
    kind: Annotated[Kind, Query(description="The model's kind.")],
    name: Annotated[str, Query(description="The model's name.")],
) -> dict[str, Any]:
    """What a safetensors file says about itself; nothing where it says nothing. Raises UnknownName."""
    rows = list(_ROWS[kind](context, context.options.snapshot()))
    found = next((fields for fields in rows if fields["name"] == name), None)
    if found is None:
        raise UnknownName("name", name, [fields["name"] for fields in rows])
    filename = found.get("filename")
    return _metadata(Path(filename)) if filename else {}


def _document(beside: _Beside, kind: Kind, fields: dict[str, Any]) -> ModelDocument:
    name, filename = fields["name"], fields.get("filename")
    size, changed = _stat(Path(filename)) if filename else (None, None)
    lack = fields.get("lack")
    return ModelDocument(
        kind=kind,
        name=name,
        title=fields.get("title") or name,
        filename=filename,
        bytes=size,
        modified_at=changed,
        hash=fields.get("hash"),
        preview=beside.preview(Path(filename)) if filename else None,
        insert=fields.get("insert"),
        description=beside.description(Path(filename)) if filename else "",
        activation_text=fields.get("activation_text", ""),
        native_size=fields.get("native_size"),
        in_use=fields.get("in_use", False),
        usable=lack is None,
        lack=lack,
    )


def _checkpoints(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    known = context.engine.checkpoints()
    used = choose_checkpoint(known, values.sd_model_checkpoint) if known else None
    for info in known:
        yield {
            "name": info.title,
            "title": info.model_name,
            "filename": info.filename,
            "hash": info.short_hash,
            "native_size": info.native_size,
            "in_use": info is used,
        }


def _adapters(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    known = context.engine.adapters()
    # An alias that several files share means none of them, and one that is another file's name means that.
    meanings = Counter(name.lower() for info in known for name in {info.name, info.alias})
    by_alias = values["lora_preferred_name"] == "Alias from file"
    for info in known:
        name = info.alias if by_alias and meanings[info.alias.lower()] == 1 else info.name
        strength = info.preferred_weight or values.extra_networks_default_multiplier
        yield {
            "name": info.name,
            "title": info.alias,
            "filename": info.filename,
            "hash": context.engine.adapter_hash(info.name),
            "insert": f"<lora:{name}:{strength:g}>" + (f" {info.activation_text}" if info.activation_text else ""),
            "activation_text": info.activation_text,
            "in_use": values.sd_lora == info.name,
        }


def _embeddings(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    known = context.engine.checkpoints()
    width = choose_checkpoint(known, values.sd_model_checkpoint).text_width if known else None
    for info in context.engine.embeddings():
        fits = width in (None, info.width)
        yield {
            "name": info.name,
            "filename": info.filename,
            "hash": info.short_hash,
            "insert": info.name,
            "lack": None if fits else "it was made for another kind of checkpoint than the one in use",
        }


def _hypernetworks(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    strength = values.extra_networks_default_multiplier
    for info in context.engine.hypernetworks():
        tag = f"<hypernet:{info.name}:{strength:g}>"
        used = values.sd_hypernetwork == info.name
        yield {"name": info.name, "filename": info.filename, "insert": tag, "in_use": used}


def _autoencoders(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    for info in context.engine.autoencoders():
        used = info.always or values.sd_vae == info.name
        yield {"name": info.name, "filename": info.filename, "in_use": used}


def _upscalers(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    yield from ({"name": name} for name in BUILT_IN)
    for info in offered(context.engine, values):
        yield {"name": info.name, "filename": info.filename, "lack": lack_of(info)}


def _restorers(context: Context, values: OptionValues) -> Iterator[dict[str, Any]]:
    for info in context.engine.face_restorers():
        lack = None if info.filename else f"its file is missing: {info.wanted}"
        used = values.face_restoration_model == info.name
        yield {"name": info.name, "filename": info.filename, "lack": lack, "in_use": used}


_ROWS: Mapping[Kind, Callable[[Context, OptionValues], Iterator[dict[str, Any]]]] = MappingProxyType(
    {
        "checkpoint": _checkpoints,
        "lora": _adapters,
        "embedding": _embeddings,
        "hypernetwork": _hypernetworks,
        "vae": _autoencoders,
        "upscaler": _upscalers,
        "face-restorer": _restorers,
    }
)


def _stat(file: Path) -> tuple[int | None, float | None]:
    """Size and time of the last change. A folder's size is not added up."""
    try:
        found = file.stat()
    except OSError:
        return None, None
    return (None if S_ISDIR(found.st_mode) else found.st_size), found.st_mtime


def _metadata(file: Path) -> dict[str, Any]:
    """The texts in the header of a safetensors file: eight bytes of length, little-endian, then JSON. Those that hold
    JSON are read; pictures are left out.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length <= _LONGEST_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    texts = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(texts, dict):
        return {}
    return {name: _opened(text) for name, text in texts.items() if name != _PICTURES_KEY}


def _opened(text: object) -> object:
    if not isinstance(text, str) or not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read(file: Path | None) -> str:
    """A small text; empty for what is none."""
    try:
        if file is None or file.stat().st_size > _LONGEST_TEXT:
            return ""
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
