"""The small files beside the checkpoints: adapters, autoencoders, embeddings, hypernetworks; where and which. No torch.

Knows folders, names and the headers of safetensors files, which are read within bounds and never run anything. Without
`hidden`, folders whose names begin with a dot are passed over.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.nets.catalog import identity, walk
from darkroom.nets.hashing import Hasher
from darkroom.nets.headers import metadata_of, read_header, wishes_beside

logger = logging.getLogger(__name__)

PICKLES = (".pt", ".ckpt")
SAFE = ".safetensors"
PICTURES = (".png", ".webp", ".jxl", ".avif")

_FORBIDDEN_ALIASES = frozenset({"none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFile:
    """One file. `name` is what requests call it, `alias` another name that its training gave it.

    `state` changes when the file does. `metadata` is that of a safetensors header, `offset` where its tensors begin.
    `wishes` are what the JSON beside it says.
    """

    name: str
    filename: str
    state: str
    alias: str = ""
    metadata: Mapping[str, Any]
    offset: int = 0
    wishes: Mapping[str, Any] = field(default_factory=dict)


def adapters(folders: Iterable[Path], *, hidden: bool = True) -> list[SmallFile]:
    """The LoRA family's files. A1111: of several with the same stem the last one counts."""
    found = {path.stem: path for path in _files(folders, (SAFE, *PICKLES), hidden=hidden)}
    return [file for path in found.values() for file in _described(path, path.stem)]


def autoencoders(
    checkpoint_folders: Iterable[Path], folders: Iterable[Path], *, hidden: bool = True
) -> list[SmallFile]:
    """The VAE files, those that lie among checkpoints by the name `*.vae.*`; the last one of a name counts."""
    beside = [
        path
        for path in _files(checkpoint_folders, (SAFE, *PICKLES), hidden=hidden)
        if path.stem.lower().endswith(".vae")
    ]
    found = {path.name: path for path in (*beside, *_files(folders, (SAFE, *PICKLES), hidden=hidden))}
    return [_bare(path, name) for name, path in found.items()]


def autoencoder(path: Path) -> list[SmallFile]:
    """One autoencoder, wherever it lies; none if it does not."""
    return [_bare(path.absolute(), path.name)] if path.is_file() else []


def embeddings(folders: Iterable[Path], *, hidden: bool = True) -> list[SmallFile]:
    """What may hold textual-inversion embeddings; pictures among them may turn out to be mere previews."""
    suffixes = (SAFE, ".pt", ".bin", *PICTURES)
    paths = (path for path in _files(folders, suffixes, hidden=hidden) if not path.stem.lower().endswith(".preview"))
    return [_bare(path, path.stem) for path in paths if path.stat().st_size]


def hypernetworks(folders: Iterable[Path], *, hidden: bool = True) -> list[SmallFile]:
    """The hypernetworks. A1111: one called None does not count."""
    found = {path.stem: path for path in _files(folders, (".pt",), hidden=hidden) if path.stem != "None"}
    return [_bare(path, name) for name, path in found.items()]


def adapter_hash(file: SmallFile, hasher: Hasher) -> str | None:
    """Twelve digits that name an adapter's tensors whatever its metadata say; None while they are being computed.

    Raises OSError.
    """
    stored = file.metadata.get("sshs_model_hash")
    digits = stored if isinstance(stored, str) and stored else hasher.find(Path(file.filename), file.offset)
    return digits[:12] if digits else None


def find_adapter(files: Sequence[SmallFile], name: str) -> SmallFile | None:
    """The adapter that a request names by its own name or its alias; an alias that means two files means none."""
    by_name = {file.name: file for file in files}
    by_alias: dict[str, SmallFile] = {}
    forbidden = set(_FORBIDDEN_ALIASES)
    for file in files:
        if file.alias in by_alias:
            forbidden.add(file.alias.lower())
        by_alias[file.name] = by_alias[file.alias] = file
    return (by_name if name.lower() in forbidden else by_alias).get(name)


def bearing(files: Sequence[SmallFile], name: str) -> list[SmallFile]:
    """The adapters that have this name or alias; several where an alias means none of them for that very reason."""
    return [file for file in files if name in (file.name, file.alias)]


def _files(folders: Iterable[Path], suffixes: tuple[str, ...], *, hidden: bool) -> Iterator[Path]:
    for folder in folders:
        yield from walk(
            folder.absolute(), lambda path: path.suffix.lower() in suffixes and path.is_file(), hidden=hidden
        )


def _bare(path: Path, name: str) -> SmallFile:
    return SmallFile(name=name, filename=str(path), state=identity(path), metadata={})


def _described(path: Path, name: str) -> Iterator[SmallFile]:
    """The file with what its header says; nothing if it is gone or its header is none."""
    try:
        if path.suffix.lower() != SAFE:
            yield SmallFile(
                name=name,
                filename=str(path),
                state=identity(path),
                alias=name,
                metadata={},
                wishes=wishes_beside(path),
            )
            return
        header, offset = read_header(path)
        metadata = metadata_of(header)
        alias = metadata.get("ss_output_name")
        yield SmallFile(
            name=name,
            filename=str(path),
            state=identity(path),
            alias=alias if isinstance(alias, str) and alias else name,
            metadata=metadata,
            offset=offset,
            wishes=wishes_beside(path),
        )
    except (OSError, ValueError, TypeError, RecursionError) as error:
        logger.warning("%s: left out, its header cannot be read: %s", path, error)
