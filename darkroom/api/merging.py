"""`/models/merge`: a new checkpoint out of one, two or three. The answer comes when the file is there; until then the
merge shows up in both routes of progress, and an interrupt or a closed connection ends it.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from darkroom.api.checkpoints import entry, find_checkpoint
from darkroom.api.context import Context, Shared
from darkroom.api.jobs.attempt import admit, note_chore
from darkroom.api.merge_request import KEPT, LEAST, MOST, NO_VAE, Merge
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, while_connected
from darkroom.errors import BadRequest, LimitExceeded, UnknownName
from darkroom.jobs.merging import CONFIG_SOURCES, METHODS, MergeOrder, Notes, NumberFormat, Stage, parents_needed
from darkroom.jobs.networks import VaeInfo
from darkroom.jobs.spec import CheckpointInfo

T = TypeVar("T", bound=str)

router = APIRouter(prefix="/models", tags=["models"])

_FORMATS: dict[str, NumberFormat | None] = {KEPT: None, "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
MAX_BLOCKS = 100
MAX_METADATA = 1_000_000


@router.post("/merge", operation_id="merge_models_merge_post", response_model=None)
async def merge(wire: Merge, request: Request, context: Shared) -> dict[str, Any] | Response:
    """Merge checkpoints into a new one and answer when it can be used. One merge runs at a time."""
    order = to_order(wire, context.engine.checkpoints(), context.engine.autoencoders())
    admit(request, context.options.snapshot())
    began = time.monotonic()
    try:
        info = await while_connected(request, _do(request, context, order, wire.task_id))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return {**entry(info), "seconds": round(time.monotonic() - began, 3)}


async def _do(request: Request, context: Context, order: MergeOrder, task_id: str) -> CheckpointInfo:
    """Wait for the merges before, and merge."""
    async with context.chores.doing("model-merge", task_id, context.settings.max_queue) as chore:
        note_chore(request, chore)

        def report(stage: Stage) -> None:
            chore.move(stage.text, stage.done, stage.total)

        return await context.engine.merge(order, report, chore.stop)


def to_order(wire: Merge, checkpoints: Sequence[CheckpointInfo], autoencoders: Sequence[VaeInfo]) -> MergeOrder:
    """The merge that a request asks for. Raises BadRequest, UnknownName."""
    method = _choice("method", wire.method, METHODS)
    needed = parents_needed(method)
    keys = {field: _parent(checkpoints, field, getattr(wire, field)) for field in "abc"[:needed]}
    for value in (wire.multiplier, *wire.block_weights):
        if not LEAST <= value <= MOST:
            field = "multiplier" if value == wire.multiplier else "block_weights"
            raise BadRequest(field, value, f"numbers from {LEAST:g} to {MOST:g}")
    if len(wire.block_weights) > MAX_BLOCKS:
        raise BadRequest("block_weights", f"{len(wire.block_weights)} numbers", f"at most {MAX_BLOCKS}")
    return MergeOrder(
        **keys,
        method=method,
        multiplier=wire.multiplier,
        block_weights=tuple(wire.block_weights),
        number_format=_FORMATS[_choice("dtype", wire.dtype, tuple(_FORMATS))],
        vae=_autoencoder(autoencoders, wire.vae),
        discard=wire.discard,
        name=wire.name,
        overwrite=wire.overwrite,
        config_source=_choice("config_source", wire.config_source, CONFIG_SOURCES),
        notes=Notes(
            written=wire.save_metadata, recipe=wire.add_recipe, copied=wire.copy_metadata, extra=_texts(wire.metadata)
        ),
    )


def _choice(field: str, value: str, known: tuple[T, ...]) -> T:
    """One of some words, in any letter case."""
    found = next((word for word in known if word.lower() == value.strip().lower()), None)
    if found is None:
        raise BadRequest(field, value, ", ".join(known))
    return found


def _parent(checkpoints: Sequence[CheckpointInfo], field: str, name: str) -> str:
    if not name:
        raise BadRequest(field, name, "the name of a checkpoint: this method needs it")
    info = find_checkpoint(checkpoints, name)
    if info is None:
        raise UnknownName(field, name, [known.title for known in checkpoints])
    return info.key


def _autoencoder(known: Sequence[VaeInfo], name: str) -> str:
    if name in ("", NO_VAE):
        return ""
    names = [vae.name for vae in known]
    if name not in names:
        raise BadRequest("vae", name, f"{', '.join([NO_VAE, *names[:8]])}")
    return name


def _texts(metadata: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Texts as they are, everything else as JSON."""
    texts = tuple((key, value if isinstance(value, str) else json.dumps(value)) for key, value in metadata.items())
    size = sum(len(key) + len(value) for key, value in texts)
    if size > MAX_METADATA:
        raise LimitExceeded("metadata", f"{size} characters", f"at most {MAX_METADATA}")
    return texts
