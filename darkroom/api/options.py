"""`/sdapi/v1/options`: reading and changing what every later job starts from."""

import logging
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Response

from darkroom.api.checkpoints import choose_checkpoint, get_checkpoint
from darkroom.api.context import Context, Shared
from darkroom.api.running import insist, printable
from darkroom.coerce import Object
from darkroom.options.table import TABLE
from darkroom.options.values import OptionValues, has_no_effect

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sdapi/v1", tags=["options"])


@router.get("/options", operation_id="get_config_sdapi_v1_options_get")
def get_options(context: Shared) -> dict[str, Any]:
    """Every option. `sd_model_checkpoint` is the title of the checkpoint in use, as `/sd-models` lists it."""
    return _shown(context).as_json()


@router.post("/options", operation_id="set_config_sdapi_v1_options_post")
async def set_options(given: Annotated[Object, Body()], context: Shared, response: Response) -> None:
    """Change options, all of them or none; the object that GET gave is welcome. Another checkpoint is loaded first.
    What has no effect is named in a header.
    """
    shown = _shown(context)
    changes = {name: value for name, value in given.items() if name in TABLE and not TABLE[name].fixed}
    ignored = [name for name, value in given.items() if has_no_effect(name, value, shown)]
    insist(context.settings, ignored)
    wanted = shown.merged(changes)  # what is wrong is refused before anything is loaded
    _check_frozen(context, shown, wanted)
    if changes.get("sd_model_checkpoint") is not None:
        changes["sd_model_checkpoint"] = await _load(context, changes["sd_model_checkpoint"], shown)
    await to_thread.run_sync(context.options.update, changes)
    if ignored:
        log.warning("options without effect: %s", printable(ignored))
        response.headers["X-Darkroom-Ignored"] = printable(ignored)


def _shown(context: Context) -> OptionValues:
    """The options, with the checkpoint that they amount to."""
    values = context.options.snapshot()
    checkpoints = context.engine.checkpoints()
    if not checkpoints:
        return values
    checkpoint = choose_checkpoint(checkpoints, values.sd_model_checkpoint)
    return values.merged({"sd_model_checkpoint": checkpoint.title, "sd_checkpoint_hash": checkpoint.sha256 or ""})


def _check_frozen(context: Context, shown: OptionValues, wanted: OptionValues) -> None:
    """Raises Frozen, UnknownCheckpoint. The checkpoint in use is no change under any of its names."""
    freezing, name = context.settings.freezing, wanted.sd_model_checkpoint
    if name is not None and name != shown.sd_model_checkpoint:
        title = get_checkpoint(context.engine.checkpoints(), name).title
        wanted = wanted.merged({"sd_model_checkpoint": title})
    freezing.check(shown, wanted)
    freezing.check_saving()


async def _load(context: Context, name: object, shown: OptionValues) -> str:
    """The title of the checkpoint of that name, which is loaded now unless it is in use already. Raises
    UnknownCheckpoint, BadModelFile.
    """
    checkpoint = get_checkpoint(context.engine.checkpoints(), str(name))
    if checkpoint.title != shown.sd_model_checkpoint:
        await context.engine.load(checkpoint.key)
    return checkpoint.title
