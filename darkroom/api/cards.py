"""`/sd_extra_networks/*`: preview pictures of models that lie beside their files. Cards are made by no page here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from darkroom.api.context import Shared
from darkroom.errors import DarkroomError, UnknownName
from darkroom.settings import Settings

router = APIRouter(prefix="/sd_extra_networks", tags=["lists"])

PAGES = ("textual inversion", "hypernetworks", "checkpoints", "lora")

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})


class CardFileError(DarkroomError):
    """A picture or an entry of a card that does not exist, or is none of the client's business."""

    http_status = 404
    code = "unknown_name"


Page = Annotated[str, Query(description="Name of a page of cards.")]
Item = Annotated[str, Query(description="Name of a card's model.")]
Tab = Annotated[str, Query(description="The tab that shows the card; no effect.")]
Index = Annotated[int, Query(description="Which of the pictures, from 0.")]


@router.get("/thumb", operation_id="fetch_file_sd_extra_networks_thumb_get")
def thumb(context: Shared, filename: Annotated[str, Query(description="Path of a picture.")] = "") -> FileResponse:
    """A preview picture out of the folders of models."""
    return FileResponse(find_picture(filename, context.settings))


@router.get("/cover-images", operation_id="fetch_cover_images_sd_extra_networks_cover_images_get")
def cover_images(page: Page = "", item: Item = "", index: Index = 0) -> None:
    """A picture that a model file holds. A1111: 404 for an entry that no rendered page has."""
    del page, item, index
    raise CardFileError("File not found")


@router.get("/metadata", operation_id="get_metadata_sd_extra_networks_metadata_get")
def metadata(page: Page = "", item: Item = "") -> dict[str, str]:
    """What a model file says about itself. A1111: nothing for an entry that no rendered page has."""
    del page, item
    return {}


@router.get("/get-single-card", operation_id="get_single_card_sd_extra_networks_get_single_card_get")
def single_card(page: Page = "", tabname: Tab = "", name: Item = "") -> dict[str, str]:
    """The HTML of one card. Raises UnknownName for a page or an entry that nobody rendered."""
    del tabname
    if page not in PAGES:
        raise UnknownName("page", page, PAGES)
    raise UnknownName("name", name, ())


def find_picture(filename: str, settings: Settings) -> Path:
    """The file, if it is a picture inside a folder of models, links resolved. Raises CardFileError."""
    roots = [root.resolve() for root in _folders(settings)]
    try:
        path = Path(filename).resolve()
        allowed = path.suffix.lower() in _PICTURES and any(path.is_relative_to(root) for root in roots)
        if allowed and path.is_file():
            return path
    except (OSError, ValueError):  # too long, or with a null byte
        pass
    raise CardFileError("File not found")


def _folders(settings: Settings) -> Iterator[Path]:
    """Where models lie."""
    yield settings.models_dir
    yield from settings.checkpoint_folders
    yield from settings.adapter_folders
    yield from settings.vae_folders
    yield from settings.embedding_folders
    yield from settings.hypernetwork_folders
    yield from settings.upscaler_folders.values()
    yield from settings.restorer_folders.values()
