"""Runs one merge of checkpoints, from names to a file in the checkpoint folder. Knows files, names and hashes; how
weights are merged is `nets.merger`'s business.

The file appears under its name once it is whole. It works in the thread that calls it, beside the device's.
"""

import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import BinaryIO

import torch
from torch import Tensor

from darkroom.engine.catalogue import Catalogue
from darkroom.errors import BadModelFile, BadRequest, DarkroomError, UnknownName
from darkroom.jobs.merging import CONFIG_SOURCES, MergeOrder, NumberFormat, Report, Stage, default_name, parents_needed
from darkroom.jobs.spec import CheckpointInfo
from darkroom.nets.containers import container_of
from darkroom.nets.merger import Kind, Mix, Parents, Part, block_names, plan
from darkroom.nets.patterns import names_with
from darkroom.nets.tensorfile import Source, TensorFile, write_tensors
from darkroom.nets.tensorfolder import TensorFolder

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
MAX_NAME_BYTES = 200
_DRAFT = ".merge-{}.part"
_STALE_S = 3600
_YAMLS = (".yaml", ".yml")
_SPARE_BYTES = 64 << 20
_FORMATS: Mapping[NumberFormat, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class Stopped(DarkroomError):
    """Somebody stopped the merge; nothing is left of it."""

    http_status = 409
    code = "interrupted"


class NameTaken(BadRequest):
    """There is a file of that name already."""

    http_status = 409
    code = "name_taken"


class CannotWrite(DarkroomError):
    """The disk has too little room for a file, or it may not be written there."""

    http_status = 507
    code = "cannot_write"


def merge(order: MergeOrder, catalogue: Catalogue, folder: Path, report: Report, stop: Event) -> CheckpointInfo:
    """Do a merge and give the new checkpoint. `report` is called from this thread; `stop` ends it early.

    Raises BadRequest for what cannot be merged so, NameTaken, CannotWrite, Stopped.
    """
    keys = (order.a, order.b, order.c)[: parents_needed(order.method)]
    infos = [_get(field, key, catalogue) for field, key in zip("abc", keys, strict=False)]
    with ExitStack() as files:
        report(Stage(text="Reading", done=0, total=1))
        parents = _open(order, infos, catalogue, files)
        base, blocks = _multipliers(order, parents.a)
        mix = Mix(
            method=order.method,
            multiplier=base,
            block_weights=blocks,
            dtype=_FORMATS[order.number_format] if order.number_format else None,
            discarded=names_with(order.discard, parents.a.forms, field="discard"),
        )
        parts = plan(parents, mix)
        kind: Kind = next((part.kind for part in parts if part.kind != "none"), "none")
        target = _target(order, infos, kind, folder)
        _check_room(parts, folder)
        notes = _notes(order, infos, parents, kind, _hashes(order, infos, catalogue, report, stop))
        pieces = _watched(parts, _caption(order), report, stop)
        digest = _write(target, _config(order, infos), order.overwrite, parts, notes, pieces)
    catalogue.remember(target, digest)
    catalogue.refresh()
    return _listed(target, catalogue)


def _listed(target: Path, catalogue: Catalogue) -> CheckpointInfo:
    """The new checkpoint. Raises BadModelFile if somebody has taken it away already."""
    for info in catalogue.checkpoints():
        if info.filename == str(target):
            return info
    raise BadModelFile(f"{target.name}: was written, and is not in the list of checkpoints")


def _get(field: str, key: str, catalogue: Catalogue) -> CheckpointInfo:
    """A checkpoint; one that is gone is the fault of the request's field."""
    try:
        return catalogue.get(key)
    except UnknownName as error:
        raise BadRequest(field, key, error.allowed) from None


def _open(order: MergeOrder, infos: Sequence[CheckpointInfo], catalogue: Catalogue, files: ExitStack) -> Parents:
    """Open what is merged, for as long as `files` are. Raises BadRequest for a file that cannot be used."""

    def opened(field: str, filename: str) -> Source:
        path = Path(filename)
        try:
            if path.is_dir():
                return files.enter_context(TensorFolder(path))
            whole = path if container_of(path) == "safetensors" else catalogue.copies.get(path)
            return files.enter_context(TensorFile(whole, path.name))
        except BadModelFile as error:
            raise BadRequest(field, path.name, f"a whole file of weights: {error}") from error

    a, b, c = (opened(field, info.filename) if info else None for field, info in zip("abc", _three(infos), strict=True))
    assert a is not None, "every method has a first parent"
    vae = opened("vae", _autoencoder(order.vae, catalogue)) if order.vae else None
    return Parents(a=a, b=b, c=c, vae=vae)


def _multipliers(order: MergeOrder, a: Source) -> tuple[float, tuple[float, ...]]:
    """The multiplier of everything but blocks, and those of the blocks."""
    given, blocks = order.block_weights, block_names(a.forms)
    return (given[0], given[1:]) if blocks and len(given) == len(blocks) + 1 else (order.multiplier, given)


def _three(infos: Sequence[CheckpointInfo]) -> list[CheckpointInfo | None]:
    return [*infos, *[None] * (3 - len(infos))]


def _autoencoder(name: str, catalogue: Catalogue) -> str:
    known = {vae.name: vae.filename for vae in catalogue.small.autoencoders()}
    if name not in known:
        raise BadRequest("vae", name, "known: " + ", ".join(list(known)[:8]) if known else "there is none yet")
    return known[name]


def _target(order: MergeOrder, infos: Sequence[CheckpointInfo], kind: Kind, folder: Path) -> Path:
    """Where the result goes. Raises BadRequest for a name that is none, NameTaken."""
    name = order.name or default_name(order.method, order.multiplier, tuple(info.model_name for info in infos))
    if order.block_weights and not order.name:
        name += " by blocks"
    name += "" if kind == "none" else f".{kind}"
    _check_name(name)
    target = folder.absolute() / (name + SUFFIX)
    if any(target.resolve() == Path(info.filename).resolve() for info in infos):
        raise NameTaken("name", target.name, "another name: it is one of the checkpoints that are merged")
    taken = [path.name for path in (target, target.with_suffix(".yaml")) if path.exists()]
    if taken and not order.overwrite:
        raise NameTaken("name", taken[0], "a name that is not taken yet, or overwrite")
    return target


def _check_name(name: str) -> None:
    """Raise BadRequest for what is no name of a file in the folder, on any system, or is an autoencoder's."""
    if (
        any(sign in name for sign in '/\\:*?"<>|')
        or not name.isprintable()
        or name.strip(" .") != name
        or name.lower().endswith(".vae")
        or len(name.encode()) > MAX_NAME_BYTES
    ):
        wanted = f"a file name without its ending, of at most {MAX_NAME_BYTES} bytes"
        raise BadRequest("name", name, f"{wanted}, not ending in .vae, without / \\ : * ? < > | and quotes")


def _check_room(parts: Sequence[Part], folder: Path) -> None:
    """Raise CannotWrite before anything is written if it would not fit."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise CannotWrite(f"{folder}: {error.strerror or error}") from error
    needed = sum(part.form.nbytes for part in parts) + _SPARE_BYTES
    if free < needed:
        raise CannotWrite(f"{folder}: {needed >> 20} MiB are needed and {free >> 20} MiB are free")


def _remove_stale(folder: Path) -> None:
    """Remove what a process left that was killed while it merged. A file that is being written is never so old."""
    for draft in folder.glob(_DRAFT.format("*")):
        if draft.stat().st_mtime < time.time() - _STALE_S:
            draft.unlink(missing_ok=True)


def _hashes(
    order: MergeOrder, infos: Sequence[CheckpointInfo], catalogue: Catalogue, report: Report, stop: Event
) -> list[str]:
    """The parents' SHA-256, for the recipe; computed where they are not known yet."""
    if not (order.notes.written and order.notes.recipe):
        return []
    found = []
    for place, info in enumerate(infos):
        report(Stage(text=f"Hashing {info.base}", done=place, total=len(infos)))
        try:
            found.append(info.sha256 or catalogue.sha256(info.filename, stop.is_set))
        except BadModelFile:
            _check_stop(stop)
            raise
    return found


def _notes(
    order: MergeOrder, infos: Sequence[CheckpointInfo], parents: Parents, kind: Kind, hashes: Sequence[str]
) -> dict[str, str]:
    """The texts of the result's header. A1111: its names and its order."""
    wanted = order.notes
    if not wanted.written:
        return {}
    own = [file.notes for file in (parents.a, parents.b, parents.c) if file]
    notes: dict[str, str] = {}
    for stored in own if wanted.copied else ():
        notes.update(stored)
    notes.update(wanted.extra)
    notes["format"] = "pt"
    if wanted.recipe:
        notes["sd_merge_recipe"] = json.dumps(_recipe(order, kind, hashes))
        notes["sd_merge_models"] = json.dumps(_ancestors(infos, own, hashes))
    return notes


def _recipe(order: MergeOrder, kind: Kind, hashes: Sequence[str]) -> dict[str, object]:
    filled: list[str | None] = [*hashes, None, None]
    primary, secondary, tertiary = filled[:3]
    recipe: dict[str, object] = {
        "type": "webui",
        "primary_model_hash": primary,
        "secondary_model_hash": secondary,
        "tertiary_model_hash": tertiary,
        "interp_method": order.method,
        "multiplier": order.multiplier,
        "save_as_half": order.number_format == "fp16",
        "custom_name": order.name,
        "config_source": CONFIG_SOURCES.index(order.config_source),
        "bake_in_vae": order.vae or "None",
        "discard_weights": order.discard,
        "is_inpainting": kind == "inpainting",
        "is_instruct_pix2pix": kind == "instruct-pix2pix",
    }
    return recipe | ({"block_weights": list(order.block_weights)} if order.block_weights else {})


def _ancestors(
    infos: Sequence[CheckpointInfo], notes: Sequence[Mapping[str, str]], hashes: Sequence[str]
) -> dict[str, object]:
    """By hash, every checkpoint that the result is made of, those that its parents were made of too."""
    found: dict[str, object] = {}
    for info, stored, digest in zip(infos, notes, hashes, strict=True):
        recipe = _decoded(stored.get("sd_merge_recipe"))
        found[digest] = {"name": info.path, "legacy_hash": info.old_hash, "sd_merge_recipe": recipe}
        models = _decoded(stored.get("sd_merge_models"))
        found.update(models if isinstance(models, dict) else {})
    return found


def _decoded(text: str | None) -> object:
    """A text of a header that is JSON as what it means; another one as it is."""
    try:
        return json.loads(text) if text and text.startswith("{") else text
    except (ValueError, RecursionError):
        return text


def _config(order: MergeOrder, infos: Sequence[CheckpointInfo]) -> Path | None:
    """The YAML that goes beside the result: the first one beside the parents that may give it."""
    asked = {"A, B or C": slice(3), "B": slice(1, 2), "C": slice(2, 3), "Don't": slice(0)}[order.config_source]
    return next((Path(info.config) for info in infos[asked] if info.config and info.config.endswith(_YAMLS)), None)


def _caption(order: MergeOrder) -> str:
    return {"No interpolation": "Copying A", "Weighted sum": "Merging A and B", "Add difference": "Merging A, B and C"}[
        order.method
    ]


def _watched(parts: Sequence[Part], text: str, report: Report, stop: Event) -> Iterator[Tensor]:
    """The pieces of all parts. Raises Stopped in between."""
    for done, part in enumerate(parts):
        report(Stage(text=text, done=done, total=len(parts)))
        for piece in part.pieces():
            _check_stop(stop)
            yield piece
    report(Stage(text="Saving", done=len(parts), total=len(parts)))


def _check_stop(stop: Event) -> None:
    if stop.is_set():
        raise Stopped("the merge was interrupted; no file was written")


def _write(
    target: Path,
    config: Path | None,
    overwrite: bool,
    parts: Sequence[Part],
    notes: Mapping[str, str],
    pieces: Iterator[Tensor],
) -> str:
    """Write the file, and the YAML beside it; nothing is left where that fails. Gives the file's SHA-256."""
    draft = target.with_name(_DRAFT.format(secrets.token_hex(8)))
    draft_config = draft.with_suffix(".yaml.part")
    try:
        with draft.open("xb") as file:
            digest = write_tensors(file, {part.name: part.form for part in parts}, notes, pieces)
            _flush(file)
        if config:
            shutil.copyfile(config, draft_config)
        _publish(draft, target, overwrite)
        _place_config(draft_config if config else None, target.with_suffix(".yaml"))
    except OSError as error:
        raise CannotWrite(f"{target.name}: cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
        draft_config.unlink(missing_ok=True)
    return digest


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _publish(draft: Path, target: Path, overwrite: bool) -> None:
    """Give the file its name. Raises NameTaken where somebody else was quicker."""
    if overwrite:
        draft.replace(target)
        return
    try:
        os.link(draft, target)  # unlike a renaming it fails where the name is taken
    except FileExistsError:
        raise NameTaken("name", target.name, "a name that is not taken yet, or overwrite") from None
    except OSError:  # a file system without links
        draft.rename(target)


def _place_config(draft: Path | None, yaml: Path) -> None:
    """Put a YAML beside the result, or see to it that none of a former file is there."""
    if draft:
        draft.replace(yaml)
    else:
        yaml.unlink(missing_ok=True)
