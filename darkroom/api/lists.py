"""The lists that clients fill their menus from: checkpoints, samplers, schedulers, upscalers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter

from darkroom.api.checkpoints import entry
from darkroom.api.context import Shared
from darkroom.api.upscaling import offered
from darkroom.images.upscale import BUILT_IN
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.sampling.names import SAMPLERS, SCHEDULERS

router = APIRouter(prefix="/sdapi/v1", tags=["lists"])

_DEFAULT_NETWORKS: Mapping[str, str] = MappingProxyType(
    {"ESRGAN": "ESRGAN_4x", "SwinIR": "SwinIR 4x", "ScuNET": "ScuNET GAN", "LDSR": "LDSR"}
)
"""The network that is meant where a family is named and no network."""


@router.get("/sd-models", operation_id="get_sd_models_sdapi_v1_sd_models_get")
def get_sd_models(context: Shared) -> list[dict[str, str | None]]:
    """The checkpoints that can be chosen."""
    return [entry(info) for info in context.engine.checkpoints()]


@router.post("/refresh-checkpoints", operation_id="refresh_checkpoints_sdapi_v1_refresh_checkpoints_post")
def refresh_checkpoints(context: Shared) -> None:
    """Look at the models folder again."""
    context.engine.refresh(hidden=context.options.snapshot().list_hidden_files)


@router.get("/samplers", operation_id="get_samplers_sdapi_v1_samplers_get")
def get_samplers() -> list[dict[str, Any]]:
    """The samplers. A1111: aliases are listed but not accepted; options are texts."""
    return [
        {"name": sampler.name, "aliases": list(sampler.aliases), "options": sampler.options} for sampler in SAMPLERS
    ]


@router.get("/schedulers", operation_id="get_schedulers_sdapi_v1_schedulers_get")
def get_schedulers() -> list[dict[str, Any]]:
    """The noise schedules. A1111: `aliases` is null where there are none."""
    return [
        {
            "name": scheduler.name,
            "label": scheduler.label,
            "aliases": list(scheduler.aliases) or None,
            "default_rho": scheduler.default_rho,
            "need_inner_model": scheduler.need_inner_model,
        }
        for scheduler in SCHEDULERS
    ]


@router.get("/upscalers", operation_id="get_upscalers_sdapi_v1_upscalers_get")
def get_upscalers(context: Shared) -> list[dict[str, Any]]:
    """What can enlarge a picture; one whose file is missing has its address as path.

    A1111: the ones that need no network claim a factor of 4 as well, and a family's default has a name.
    """
    rows = [(name, None, None, 4.0) for name in BUILT_IN]
    networks = [
        (info.name, _DEFAULT_NETWORKS.get(info.family), info.filename or info.address, info.scale)
        for info in offered(context.engine, context.options.snapshot())
    ]
    return [
        {"name": name, "model_name": model, "model_path": path, "model_url": None, "scale": scale}
        for name, model, path, scale in (*rows, *networks)
    ]


@router.get("/latent-upscale-modes", operation_id="get_latent_upscale_modes_sdapi_v1_latent_upscale_modes_get")
def get_latent_upscale_modes() -> list[dict[str, str]]:
    """What can enlarge a latent between the two passes of hires fix."""
    return [{"name": name} for name in LATENT_MODES]
