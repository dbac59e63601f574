"""`/sdapi/v1/png-info`: the generation text that a picture carries."""

from collections.abc import Mapping
from typing import Any

from anyio import to_thread
from fastapi import APIRouter

from darkroom.api.context import Context, Shared
from darkroom.api.fetch import with_pictures
from darkroom.api.infotext import reading
from darkroom.api.models import PngInfo
from darkroom.engine.client import Engine
from darkroom.images.codecs import decode_base64
from darkroom.images.metadata import read_notes
from darkroom.jobs.conversions import network_hashes, rename_networks
from darkroom.jobs.infotext import read
from darkroom.jobs.networks import AdapterInfo
from darkroom.sampling.names import SAMPLERS

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])

_SAMPLERS = {name.lower(): sampler.name for sampler in SAMPLERS for name in (sampler.name, *sampler.aliases)}
"""Names by what other programs call the samplers."""


@router.post("/png-info", operation_id="pnginfoapi_sdapi_v1_png_info_post")
async def png_info(wire: PngInfo, context: Shared) -> dict[str, Any]:
    """The text as it is, what it says, and the picture's other notes."""
    wire = await with_pictures(wire, context)
    return await to_thread.run_sync(_read, wire, context, limiter=context.workers)


def _read(wire: PngInfo, context: Context) -> dict[str, Any]:
    picture = decode_base64(wire.image, field="image", max_pixels=context.settings.max_image_pixels)
    text, items = read_notes(picture, samplers=_SAMPLERS)
    entries = read(text, reading(context.options.snapshot(), context.settings))
    rename_networks(entries, _local_names(network_hashes(entries), context.engine))
    return {"info": text, "items": items, "parameters": entries}


def _local_names(hashes: Mapping[str, str], engine: Engine) -> dict[str, str]:
    """What the adapters of a text are called here, by the names that the text uses.

    An adapter is known by its hash: computed for one that has the text's name, read from the notes of all others.
    """
    if not hashes:
        return {}
    adapters = engine.adapters()
    noted = {str(info.metadata.get("sshs_model_hash", ""))[:12]: info for info in adapters}
    found = {}
    for name, digits in hashes.items():
        info = engine.find_adapter(name)
        if info is None or engine.adapter_hash(info.name) != digits:
            info = noted.get(digits)
        if info:
            found[name] = _preferred(info, engine)
    return found


def _preferred(info: AdapterInfo, engine: Engine) -> str:
    """An adapter's alias, or its own name where the alias could mean another."""
    meant = engine.find_adapter(info.alias)
    return info.alias if meant and meant.name == info.name else info.name
