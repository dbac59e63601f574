"""`/sdapi/v1/options`: reading and changing what every later job starts from."""

import logging
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Response

from darkroom.api.checkpoints import choose_checkpoint, get_checkpoint
from darkroom.api.context import Context, Shared
from darkroom.api.other_options import OTHER_OPTIONS, asks_for_something
from darkroom.api.running import printable
from darkroom.coerce import Object
from darkroom.errors import BadRequest
from darkroom.settings import NO_EFFECT_YET, OptionValues

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sdapi/v1", tags=["options"])

_READ_ONLY = frozenset({"sd_checkpoint_hash"})


@router.get("/options", operation_id="get_config_sdapi_v1_options_get")
def get_options(context: Shared) -> dict[str, Any]:
    """Every option. `sd_model_checkpoint` is the title of the checkpoint in use, as `/sd-models` lists it."""
    values = context.options.snapshot()
    shown = {**OTHER_OPTIONS, **values.model_dump()}
    checkpoints = context.engine.checkpoints()
    if checkpoints:
        checkpoint = choose_checkpoint(checkpoints, values.sd_model_checkpoint)
        shown["sd_model_checkpoint"] = checkpoint.title
        shown["sd_checkpoint_hash"] = checkpoint.sha256 or ""
    return shown


@router.post("/options", operation_id="set_config_sdapi_v1_options_post")
async def set_options(given: Annotated[Object, Body()], context: Shared, response: Response) -> None:
    """Change options, all of them or none. Unknown ones are named in a header; the object that GET gave is welcome."""
    changes, ignored = _sort(given)
    if changes.get("sd_model_checkpoint") is not None:
        changes["sd_model_checkpoint"] = _title(context, changes["sd_model_checkpoint"])
    await to_thread.run_sync(context.options.update, changes)
    if ignored:
        log.warning("options without effect: %s", printable(ignored))
        response.headers["X-Darkroom-Ignored"] = printable(ignored)


def _title(context: Context, name: object) -> str:
    """The title of the checkpoint of that name. Raises UnknownCheckpoint, BadRequest."""
    if not isinstance(name, str):
        raise BadRequest("sd_model_checkpoint", name, "the title, name or hash of a checkpoint")
    return get_checkpoint(context.engine.checkpoints(), name).title


def _sort(given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options that exist, and the names of those that change nothing."""
    defaults = OptionValues()
    changes = {key: value for key, value in given.items() if key in OptionValues.model_fields and key not in _READ_ONLY}
    ignored = [key for key in given if key not in OptionValues.model_fields and asks_for_something(key, given[key])]
    ignored += [key for key, value in changes.items() if key in NO_EFFECT_YET and value != getattr(defaults, key)]
    return changes, ignored
