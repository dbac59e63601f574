"""`POST /generate/`: a few plain fields in, a picture out; no knowledge of any other API needed."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from darkroom.api.context import Shared
from darkroom.api.convert import Prepared, to_spec
from darkroom.api.jobs.attempt import drawn_seeds, options_of
from darkroom.api.models import Simple, Txt2Img, request_of
from darkroom.api.results import encode_shot, finish, make_grid, with_notes
from darkroom.api.running import CLIENT_CLOSED_REQUEST, ClientGoneError, job_headers, run_job
from darkroom.api.shots import Shot
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import to_base64
from darkroom.options.values import OptionValues
from darkroom.settings import Settings

router = APIRouter(tags=["generation"])

_FORM = "application/x-www-form-urlencoded"

_DOCUMENTED: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {"schema": Simple.model_json_schema()},
            _FORM: {"schema": Simple.model_json_schema()},
        }
    }
}


@router.post("/generate/", openapi_extra=_DOCUMENTED, response_class=Response)
async def generate(request: Request, context: Shared) -> Response:
    """Make pictures. The answer is a PNG (several as a grid), a ZIP or JSON, as the Accept header says.

    The fields may come as JSON, as a form or in the query.
    """
    simple = await _read(request)
    wire = _to_wire(simple, context.settings)
    wire = wire.model_copy(update=drawn_seeds(request))
    options = options_of(request, context)
    checkpoints, limiter = context.engine.checkpoints(), context.workers
    prepared = await to_thread.run_sync(
        to_spec, wire, options, context.settings, checkpoints, context.engine, limiter=limiter
    )
    prepared = replace(prepared, warnings=(*simple.leniencies, *prepared.warnings))
    try:
        event = await run_job(request, context, prepared)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    accept = request.headers.get("accept", "")
    prepared = with_notes(prepared, event)
    shots = await to_thread.run_sync(finish, prepared, event, limiter=limiter)
    if not shots:
        raise HTTPException(409, "the job was stopped before its first picture")
    body, media_type = await to_thread.run_sync(_pack, shots, prepared, options, accept, limiter=limiter)
    headers = job_headers(prepared, event.status.job_id) | {"X-Seed": str(shots[0].seed)}
    return Response(body, media_type=media_type, headers=headers)


async def _read(request: Request) -> Simple:
    """The fields of the query, and of the body where there is one. Raises RequestValidationError."""
    given: dict[str, Any] = dict(request.query_params)
    body = await request.body()
    if body:
        given |= _parse(body, request.headers.get("content-type", ""))
    try:
        return Simple.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(
            [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors(include_url=False)]
        ) from None


def _parse(body: bytes, content_type: str) -> Mapping[str, Any]:
    if content_type.startswith(_FORM):
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is neither JSON nor a form") from None
    if not isinstance(given, dict):
        raise HTTPException(422, "the body is not a JSON object")
    return given


def _to_wire(simple: Simple, settings: Settings) -> Txt2Img:
    count = simple.number_of_images
    if count > settings.max_images:
        raise LimitExceeded("number_of_images", count, f"from 1 to {settings.max_images}")
    if count < 1:
        raise BadRequest("number_of_images", count, f"from 1 to {settings.max_images}")
    open_ones = {"cfg_scale"} - simple.model_fields_set  # for the checkpoint to say
    fields = simple.model_dump(exclude={"number_of_images", *open_ones}, exclude_none=True)
    together = count <= settings.max_batch_size
    return request_of(Txt2Img, {**fields, "batch_size" if together else "n_iter": count})


def _pack(shots: Sequence[Shot], prepared: Prepared, options: OptionValues, accept: str) -> tuple[bytes, str]:
    """The answer's body and type."""
    if "application/zip" in accept:
        return _zip(shots, prepared), "application/zip"
    if "application/json" in accept and "image/" not in accept:
        return _json(shots, prepared), "application/json"
    shot = shots[0] if len(shots) == 1 else make_grid(shots, options, prepared.spec.batch_size)
    return encode_shot(shot, prepared, file_format="png"), "image/png"


def _zip(shots: Sequence[Shot], prepared: Prepared) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for place, shot in enumerate(shots):
            archive.writestr(f"{place:02}-{shot.seed}.png", encode_shot(shot, prepared, file_format="png"))
    return buffer.getvalue()


def _json(shots: Sequence[Shot], prepared: Prepared) -> bytes:
    document = {
        "images": [to_base64(encode_shot(shot, prepared, file_format="png")) for shot in shots],
        "seeds": [shot.seed for shot in shots],
        "infotexts": [shot.text for shot in shots],
    }
    return json.dumps(document).encode()
