"""What the API lists for choosing from, asked for once when a page is opened."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from darkroom.ui.service import Refused, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Names as requests take them, in the API's order. `options` are the server's; `scripts` by tab, as
    `/sdapi/v1/scripts` has them, and `script_info` as `/sdapi/v1/script-info`.
    """

    checkpoints: list[str] = field(default_factory=list)
    vaes: list[str] = field(default_factory=list)
    upscalers: list[str] = field(default_factory=list)
    latent_modes: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    face_restorers: list[str] = field(default_factory=list)
    scripts: dict[str, list[str]] = field(default_factory=dict)
    script_info: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


async def read_lists(api: Service) -> Lists:
    """All of it. A list that the viewer may not see is empty."""
    found = await asyncio.gather(
        *(
            _listed(api, path)
            for path in (
                "sd-models", "sd-vae", "upscalers", "latent-upscale-modes", "prompt-styles", "face-restorers",
                "scripts", "script-info", "options",
            )
        )
    )  # fmt: skip
    models, vaes, upscalers, modes, styles, faces, scripts, info, options = found
    return Lists(
        checkpoints=[entry["title"] for entry in models],
        vaes=[entry["model_name"] for entry in vaes],
        upscalers=[entry["name"] for entry in upscalers],
        latent_modes=[entry["name"] for entry in modes],
        styles=[
            entry["name"] for entry in styles if entry["prompt"] is not None or entry["negative_prompt"] is not None
        ],
        face_restorers=[entry["name"] for entry in faces],
        scripts=scripts or {},
        script_info=list(info),
        options=options or {},
    )


async def _listed(api: Service, name: str) -> Any:
    try:
        return await api.get(f"/sdapi/v1/{name}")
    except Refused:
        return []
