"""`/sdapi/v1/unload-checkpoint` and `/reload-checkpoint`: which models stay in the device's memory between jobs."""

from typing import Any

from fastapi import APIRouter

from darkroom.api.checkpoints import choose_checkpoint
from darkroom.api.context import Shared

router = APIRouter(prefix="/sdapi/v1", tags=["server"])


@router.post("/unload-checkpoint", operation_id="unloadapi_sdapi_v1_unload_checkpoint_post")
async def unload_checkpoint(context: Shared) -> dict[str, Any]:
    """Free what the loaded models hold. A job that needs one loads it again by itself."""
    await context.engine.unload()
    return {}


@router.post("/reload-checkpoint", operation_id="reloadapi_sdapi_v1_reload_checkpoint_post")
async def reload_checkpoint(context: Shared) -> dict[str, Any]:
    """Load the checkpoint that the options name. Raises NoCheckpointError, BadModelFile."""
    checkpoint = choose_checkpoint(context.engine.checkpoints(), context.options.snapshot().sd_model_checkpoint)
    await context.engine.load(checkpoint.key)
    return {}
