"""What is installed here besides models that can be chosen: extensions, face restorers, and how much memory there is.

Knows lists and numbers. Knows nothing of what restores or upscales.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from darkroom.api.context import Shared
from darkroom.engine.client import DeviceMemory
from darkroom.extensions import PREFIX, Installed

router = APIRouter(prefix="/sdapi/v1", tags=["lists"])

FACE_RESTORERS = ("CodeFormer", "GFPGAN")

_RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
REALESRGAN_MODELS = (
    ("R-ESRGAN General 4xV3", "v0.2.5.0/realesr-general-x4v3.pth", 4),
    ("R-ESRGAN General WDN 4xV3", "v0.2.5.0/realesr-general-wdn-x4v3.pth", 4),
    ("R-ESRGAN AnimeVideo", "v0.2.5.0/realesr-animevideov3.pth", 4),
    ("R-ESRGAN 4x+", "v0.1.0/RealESRGAN_x4plus.pth", 4),
    ("R-ESRGAN 4x+ Anime6B", "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth", 4),
    ("R-ESRGAN 2x+", "v0.2.1/RealESRGAN_x2plus.pth", 2),
)
"""The published models: name, file among the releases, factor."""


@router.get("/face-restorers", operation_id="get_face_restorers_sdapi_v1_face_restorers_get")
def get_face_restorers() -> list[dict[str, str | None]]:
    """The face restorers by name. A1111: they are listed whether or not their files are there."""
    return [{"name": name, "cmd_dir": None} for name in FACE_RESTORERS]


@router.get("/realesrgan-models", operation_id="get_realesrgan_models_sdapi_v1_realesrgan_models_get")
def get_realesrgan_models() -> list[dict[str, str | int]]:
    """The published Real-ESRGAN models. A1111: always the same six, whatever is installed."""
    return [{"name": name, "path": _RELEASES + file, "scale": scale} for name, file, scale in REALESRGAN_MODELS]


@router.get("/extensions", operation_id="get_extensions_list_sdapi_v1_extensions_get")
def get_extensions(context: Shared) -> list[dict[str, Any]]:
    """The extensions that are installed, whether they are loaded, and what they add. They are Python packages, not git
    clones.
    """
    return [
        {
            "name": one.name,
            "remote": "",
            "branch": "",
            "commit_hash": "",
            "version": one.version,
            "commit_date": "0",
            "enabled": one.extension is not None,
            "scripts": [script.title for script in one.extension.scripts] if one.extension else [],
            "routes": _routes(one),
        }
        for one in context.extensions
    ]


def _routes(one: Installed) -> list[str]:
    """The paths that an extension adds."""
    routers = one.extension.routers if one.extension else ()
    paths = (getattr(route, "path", "") for router in routers for route in router.routes)
    return list(dict.fromkeys(f"{PREFIX}{one.name}{path}" for path in paths))


@router.get("/memory", operation_id="get_memory_sdapi_v1_memory_get")
def get_memory(context: Shared) -> dict[str, Any]:
    """Memory of the process and of the CUDA device, bytes."""
    return {"ram": _ram(), "cuda": _cuda(context.engine.memory())}


def _ram() -> Mapping[str, object]:
    """A1111: what is free is whatever this process does not use."""
    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        total = os.sysconf("SC_PHYS_PAGES") * page_bytes
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page_bytes
    except (OSError, ValueError, AttributeError) as error:
        return {"error": str(error)}
    return {"free": float(total - used), "used": used, "total": float(total)}


def _cuda(memory: DeviceMemory | None) -> Mapping[str, object]:
    if memory is None:
        return {"error": "unavailable"}

    def pair(values: tuple[int, int]) -> dict[str, int]:
        return {"current": values[0], "peak": values[1]}

    return {
        "system": {"free": memory.free, "used": memory.total - memory.free, "total": memory.total},
        "active": pair(memory.active),
        "allocated": pair(memory.allocated),
        "reserved": pair(memory.reserved),
        "inactive": pair(memory.inactive),
        "events": {"retries": memory.retries, "oom": memory.out_of_memory},
    }
