"""What the API lists for choosing from, asked for once when a page is opened."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from darkroom.ui.service import Refused, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Names as requests take them, in the API's order. `options` are the server's; `scripts` by tab, as
    `/sdapi/v1/scripts` has them, and `script_info` as `/sdapi/v1/script-info`. `native_sizes` are the sides of
    pictures, pixels, by checkpoint; that of the one which counts without any choice has no name.
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
    native_sizes: dict[str, int] = field(default_factory=dict)


async def read_lists(api: Service) -> Lists:
    """All of it. A list that the viewer may not see is empty."""
    found = await asyncio.gather(
        *(
            _listed(api, path)
            for path in (
                *(f"/sdapi/v1/{name}" for name in (
                    "sd-models", "sd-vae", "upscalers", "latent-upscale-modes", "prompt-styles", "face-restorers",
                    "scripts", "script-info", "options",
                )),
                "/models?kind=checkpoint",
            )
        )
    )  # fmt: skip
    models, vaes, upscalers, modes, styles, faces, scripts, info, options, checkpoints = found
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
        native_sizes=_sizes(checkpoints),
    )


def _sizes(checkpoints: list[dict[str, Any]]) -> dict[str, int]:
    found = {one["name"]: one["native_size"] for one in checkpoints}
    used = next((one["native_size"] for one in checkpoints if one["in_use"]), None)
    return found | ({"": used} if used else {})


async def _listed(api: Service, path: str) -> Any:
    try:
        return await api.get(path)
    except Refused:
        return []
