"""How a checkpoint is named: nine exact spellings; a second checkpoint's name may also be a part of a title.

Knows no file and no network.
"""

import re
from collections.abc import Iterator, Sequence

from darkroom.api.answers import UnknownCheckpoint
from darkroom.errors import DarkroomError, UnknownName
from darkroom.jobs.spec import CheckpointInfo

_HASH = re.compile(r"\s*\[[^]]+\]\s*\Z")


class NoCheckpointError(DarkroomError):
    """There is not a single checkpoint to draw with."""

    http_status = 503
    code = "no_checkpoint"


def find_checkpoint(checkpoints: Sequence[CheckpointInfo], name: str | None) -> CheckpointInfo | None:
    """The checkpoint of exactly this name; the last one if several share it."""
    return next((info for info in reversed(checkpoints) if name and name in set(_names(info))), None)


def get_checkpoint(checkpoints: Sequence[CheckpointInfo], name: str) -> CheckpointInfo:
    """The checkpoint of exactly this name. Raises UnknownCheckpoint."""
    info = find_checkpoint(checkpoints, name)
    if info is None:
        raise UnknownCheckpoint("sd_model_checkpoint", name, [known.title for known in checkpoints])
    return info


def closest_checkpoint(checkpoints: Sequence[CheckpointInfo], field: str, name: str) -> CheckpointInfo:
    """The checkpoint that a request's field means, or the one with the shortest title that holds the name; a hash in
    brackets at the end may be another one's. Raises UnknownName.
    """
    exact = find_checkpoint(checkpoints, name)
    if exact is not None:
        return exact
    for part in (name, _HASH.sub("", name)):
        near = [info for info in checkpoints if part and part in info.title]
        if near:
            return min(near, key=lambda info: len(info.title))
    raise UnknownName(field, name, [known.title for known in checkpoints])


def choose_checkpoint(checkpoints: Sequence[CheckpointInfo], configured: str | None) -> CheckpointInfo:
    """The configured checkpoint. A1111: the first of the list where that names nothing known."""
    if not checkpoints:
        raise NoCheckpointError("No checkpoints found in the models folder")
    return find_checkpoint(checkpoints, configured) or checkpoints[0]


def _names(info: CheckpointInfo) -> Iterator[str]:
    yield from (info.path, info.title, info.model_name, info.base)
    if info.sha256 and info.short_hash:
        yield from (f"{info.base} [{info.short_hash}]", info.short_hash, info.sha256)
    if info.old_hash:
        yield from (info.old_hash, f"{info.path} [{info.old_hash}]")


def entry(info: CheckpointInfo) -> dict[str, str | None]:
    """A checkpoint as `/sd-models` lists it."""
    return {
        "title": info.title,
        "model_name": info.model_name,
        "hash": info.short_hash,
        "sha256": info.sha256,
        "filename": info.filename,
        "config": info.config,
    }
