"""`/v1/images/generations`, `/v1/images/edits` and `/v1/models`: for clients that were written for OpenAI."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from darkroom.api.checkpoints import find_checkpoint
from darkroom.api.context import Context, Shared
from darkroom.api.convert import Prepared, to_spec
from darkroom.api.jobs.attempt import drawn_seeds, options_of
from darkroom.api.openai.convert import Asked, to_edit, to_generation
from darkroom.api.openai.errors import OpenAIRoute, ParameterError, UnknownModelError
from darkroom.api.openai.models import EditRequest, GenerationRequest, Images, ModelCard, ModelList
from darkroom.api.openai.pictures import KeptPictures
from darkroom.api.results import encode_shot, finish, with_notes
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, job_headers, run_job
from darkroom.engine.client import Event
from darkroom.images.codecs import MEDIA_TYPES, to_base64
from darkroom.jobs.spec import CheckpointInfo

router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute)

_MAX_FILES, _MAX_FIELDS = 20, 64
_FILES = {"image": "image", "image[]": "image", "mask": "mask"}

_EDIT_SCHEMA = EditRequest.model_json_schema()
_UPLOAD = {"type": "string", "format": "binary"}
_EDIT_FILES = {
    "image": {**_UPLOAD, "description": "The picture. Without a mask it is repainted where it is wholly transparent."},
    "mask": {
        **_UPLOAD,
        "description": "As large as the picture; where it is wholly transparent the picture is repainted.",
    },
}
_DOCUMENTED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    **_EDIT_SCHEMA,
                    "properties": {**_EDIT_FILES, **_EDIT_SCHEMA["properties"]},
                    "required": ["image", "prompt"],
                }
            }
        },
    }
}


@router.get("/models")
def list_models(context: Shared) -> ModelList:
    """The checkpoints, under the names that a request gives them."""
    return ModelList(data=[_card(info) for info in context.engine.checkpoints()])


@router.get("/models/{model:path}")
def get_model(model: str, context: Shared) -> ModelCard:
    """One checkpoint, by any of its names."""
    checkpoints = context.engine.checkpoints()
    found = find_checkpoint(checkpoints, model)
    if found is None:
        raise UnknownModelError(model, ", ".join(info.model_name for info in checkpoints) or "none")
    return _card(found)


def _card(info: CheckpointInfo) -> ModelCard:
    try:
        changed = int(Path(info.filename).stat().st_mtime)
    except OSError:
        changed = 0
    return ModelCard(id=info.model_name, created=changed)


@router.post("/images/generations", responses={200: {"model": Images}})
async def generate_images(wire: GenerationRequest, request: Request, context: Shared) -> Response:
    """Make pictures from a text. The extra fields are sent beside OpenAI's (`extra_body` in its Python client)."""
    sent = [str(name) for name in await request.json()]
    asked = to_generation(wire, sent, context.settings, context.engine.checkpoints())
    return await _answer(asked, request, context)


@router.post("/images/edits", responses={200: {"model": Images}}, openapi_extra=_DOCUMENTED)
async def edit_images(request: Request, context: Shared) -> Response:
    """Repaint a picture: where its mask, or it itself, is transparent, and everywhere if nothing is."""
    fields, files = await _read_form(request)
    try:
        wire = EditRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from None
    checkpoints = context.engine.checkpoints()
    asked = await to_thread.run_sync(
        to_edit, wire, list(fields), files, context.settings, checkpoints, limiter=context.workers
    )
    return await _answer(asked, request, context)


async def _read_form(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """The fields and the files of a form. Raises ParameterError, HTTPException."""
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FIELDS) as form:
        for name, value in form.multi_items():
            if name not in _FILES:
                fields[name] = value if isinstance(value, str) else ""
            elif not isinstance(value, UploadFile):
                raise ParameterError(name, value, "a file in a multipart form")
            elif _FILES[name] in files:
                raise ParameterError(_FILES[name], "a second file", "one picture; several cannot be combined here")
            else:
                files[_FILES[name]] = await value.read()
    if "image" not in files:
        raise ParameterError("image", None, "a file in a multipart form")
    return fields, files


async def _answer(asked: Asked, request: Request, context: Context) -> Response:
    """Run the job, and answer with its pictures."""
    options, settings, limiter = options_of(request, context), context.settings, context.workers
    checkpoints = context.engine.checkpoints()
    prepared = await to_thread.run_sync(
        to_spec,
        asked.wire.model_copy(update=drawn_seeds(request)),
        options,
        settings,
        checkpoints,
        context.engine,
        limiter=limiter,
    )
    prepared = replace(
        prepared,
        ignored=(*asked.ignored, *prepared.ignored),
        warnings=(*asked.warnings, *prepared.warnings),
    )
    try:
        event = await run_job(request, context, prepared)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    body = await to_thread.run_sync(_pack, asked, prepared, event, context.kept, str(request.base_url), limiter=limiter)
    return Response(body, media_type="application/json", headers=job_headers(prepared, event.status.job_id))


def _pack(asked: Asked, prepared: Prepared, event: Event, kept: KeptPictures, base: str) -> bytes:
    prepared = with_notes(prepared, event)
    shots = [shot for shot in finish(prepared, event) if not shot.suffix]
    if not shots:
        raise HTTPException(409, "the job was stopped before its first picture")
    height, width = shots[0].picture.shape[:2]
    files = [
        encode_shot(shot, prepared, file_format=prepared.options.samples_format, quality=prepared.options.jpeg_quality)
        for shot in shots
    ]
    document: Mapping[str, object] = {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": asked.file_format,
        "quality": asked.quality,
        "size": f"{width}x{height}",
        "data": [
            {**_shown(file, asked, kept, base), "seed": shot.seed} for file, shot in zip(files, shots, strict=True)
        ],
    }
    return json.dumps(document).encode()


def _shown(file: bytes, asked: Asked, kept: KeptPictures, base: str) -> dict[str, str]:
    """A picture's file, its address, or both."""
    shown: dict[str, str] = {}
    if asked.inline:
        shown["b64_json"] = to_base64(file)
    if asked.addressed:
        name = kept.put(file, MEDIA_TYPES[asked.file_format])
        shown["url"] = f"{base.rstrip('/')}{router.prefix}/pictures/{name}"
    return shown


@router.get("/pictures/{name}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
def get_picture(name: str, context: Shared) -> Response:
    """A picture whose address an answer gave. Whoever has the address needs no password."""
    found = context.kept.find(name)
    if found is None:
        raise HTTPException(404, "there is no such picture, or no longer")
    return Response(found.data, media_type=found.media_type, headers={"Cache-Control": "private, immutable"})
