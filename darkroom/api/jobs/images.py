"""`/images`: every picture that was made here, with what is known of it; found again, tagged, made again, removed."""

import io
import time
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response
from PIL import Image
from pydantic import BaseModel, Field

from darkroom.api.jobs.desk import Books, Desk, is_signed
from darkroom.api.jobs.documents import ImageDocument, image_document
from darkroom.api.jobs.keeping import remove_files, thumbnail_key
from darkroom.api.jobs.routes import desk_of
from darkroom.api.owners import EVERYBODY, may_see, viewer_of
from darkroom.errors import BadRequest, Forbidden, UnknownName
from darkroom.history.gallery import MAX_TAG_CHARS, MAX_TAGS, Search
from darkroom.history.ledger import Kept
from darkroom.history.rows import MOST_LISTED

router = APIRouter(prefix="/images", tags=["images"])

_SMALL = 256
"""The longer side of a thumbnail, pixels."""


class ImageList(BaseModel):
    """A page of pictures. `next` is what `before` must be for the following page; null on the last."""

    images: list[ImageDocument]
    next: str | None = Field(description="The `before` of the next page.")


class ImageQuery(BaseModel):
    """Which pictures are looked for. What is left out does not matter."""

    text: str = Field("", description="Words that all stand in the generation text.")
    model: str | None = Field(None, description="Part of the checkpoint's name, or its hash.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="The picture's seed.")
    tag: str | None = Field(None, description="A tag that it carries.")
    job: str | None = Field(None, description="The job that made it.")
    owner: str | None = Field(None, description="Whose it is, for who may see them all.")
    since: float | None = Field(None, allow_inf_nan=False, description="Made at this Unix time or later.")
    until: float | None = Field(None, allow_inf_nan=False, description="Made before this Unix time.")
    before: str | None = Field(
        None, description="Only what is behind this: the `next` of the page before, or a picture."
    )
    limit: int = Field(50, ge=1, le=MOST_LISTED, description="Most pictures of the page.")


@router.get("", operation_id="list_images")
async def list_images(request: Request, query: Annotated[ImageQuery, Query()]) -> ImageList:
    """Pictures, the newest first."""
    viewer = viewer_of(request.scope)
    wanted = Search(
        owner=viewer if viewer != EVERYBODY else query.owner,
        text=query.text,
        model=query.model,
        seed=query.seed,
        tag=query.tag,
        job_id=query.job,
        since=query.since,
        until=query.until,
        before=query.before,
        limit=query.limit,
    )
    found = await desk_of(request).do(lambda books: books.gallery.search(wanted))
    return ImageList(images=[image_document(one) for one in found.rows], next=found.next)


@router.get("/{image_id}", operation_id="get_image")
async def get_image(image_id: str, request: Request) -> ImageDocument:
    """What is known of a picture."""
    return image_document(await _get(desk_of(request), image_id, viewer_of(request.scope)))


@router.get("/{image_id}/file", operation_id="get_image_file", response_class=Response)
async def get_file(
    image_id: str,
    request: Request,
    expires: Annotated[str, Query(description="Until when a signed address counts, Unix seconds.")] = "",
    signature: Annotated[str, Query(description="The signature of a signed address.")] = "",
) -> Response:
    """The picture's file. A signed address needs no password."""
    desk = desk_of(request)
    viewer = viewer_of(request.scope)
    if signature:
        secret = (await desk.do(lambda books: books)).secret
        if not is_signed(secret, f"/images/{image_id}/file", expires, signature, time.time()):
            raise Forbidden("the address has expired, or was changed")
        viewer = EVERYBODY
    kept = await _get(desk, image_id, viewer)
    data = await desk.do(lambda books: books.files.find(kept.key))
    if data is None:
        raise UnknownName("image", image_id, [])
    return _file(data, kept.media_type)


@router.get("/{image_id}/thumbnail", operation_id="get_image_thumbnail", response_class=Response)
async def get_thumbnail(image_id: str, request: Request) -> Response:
    """The picture in small, WebP; made when it is first asked for."""
    desk = desk_of(request)
    kept = await _get(desk, image_id, viewer_of(request.scope))
    data = await desk.do(lambda books: _thumbnail(books, kept))
    if data is None:
        raise UnknownName("image", image_id, [])
    return _file(data, "image/webp")


@router.put("/{image_id}/tags", operation_id="tag_image")
async def tag_image(
    image_id: str,
    request: Request,
    tags: Annotated[list[str], Body(embed=True, description="All tags that it is to carry.")],
) -> ImageDocument:
    """Have a picture carry exactly these tags."""
    desk = desk_of(request)
    await _get(desk, image_id, viewer_of(request.scope))
    names = [name.strip() for name in tags]
    wrong = next((name for name in names if not 0 < len(name) <= MAX_TAG_CHARS), None)
    if wrong is not None or len(names) > MAX_TAGS:
        allowed = f"at most {MAX_TAGS} tags of 1 to {MAX_TAG_CHARS} characters"
        raise BadRequest("tags", wrong if wrong is not None else f"{len(names)} tags", allowed)
    await desk.do(lambda books: books.gallery.tag(image_id, names))
    return image_document(await _get(desk, image_id, viewer_of(request.scope)))


@router.delete("/{image_id}", operation_id="delete_image", status_code=204)
async def delete_image(image_id: str, request: Request) -> None:
    """Remove a picture, its record and its file."""
    desk = desk_of(request)
    await _get(desk, image_id, viewer_of(request.scope))

    def remove(books: Books) -> None:
        key = books.gallery.remove(image_id)
        remove_files(books.files, [key] if key else [])

    await desk.do(remove)


async def _get(desk: Desk, image_id: str, viewer: str) -> Kept:
    kept = await desk.do(lambda books: books.gallery.find(image_id))
    if kept is None or not may_see(viewer, kept.owner):
        raise UnknownName("image", image_id, [])
    return kept


def _file(data: bytes, media_type: str) -> Response:
    # An id never names another file: whoever has it may keep it.
    return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=31536000, immutable"})


def _thumbnail(books: Books, kept: Kept) -> bytes | None:
    key = thumbnail_key(kept.key)
    small = books.files.find(key)
    if small is not None:
        return small
    data = books.files.find(kept.key)
    if data is None:
        return None
    with Image.open(io.BytesIO(data)) as picture:
        picture.thumbnail((_SMALL, _SMALL))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=80)
    books.files.put(key, buffer.getvalue(), "image/webp")
    return buffer.getvalue()
