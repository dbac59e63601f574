"""The shapes of refusals: A1111's bodies, with a stable code added. Knows no route."""

import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from darkroom.errors import BadImage, BadRequest, BodyTooLarge, ComeAgain, DarkroomError, Frozen, UnknownName
from darkroom.history.files import FilesUnavailable
from darkroom.scripts.registry import ScriptRefused

log = logging.getLogger(__name__)

_SHOWN = 200
"""Characters of a refused value that an answer repeats."""

_WORDING: dict[str, tuple[str, str]] = {
    "missing": ("field required", "value_error.missing"),
    "model_attributes_type": ("value is not a valid dict", "type_error.dict"),
    "model_type": ("value is not a valid dict", "type_error.dict"),
    "dict_type": ("value is not a valid dict", "type_error.dict"),
}
"""A1111's words for what pydantic says otherwise."""


_CODES = {404: "not_found", 405: "method_not_allowed", BodyTooLarge.http_status: BodyTooLarge.code}


_STORAGE: Final = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
        errno.EIO, errno.ENAMETOOLONG,
    }
)  # fmt: skip
"""What is wrong with a disk or a folder, and not with the program."""


class InitImageError(DarkroomError):
    """An img2img request without a picture to start from."""

    http_status = 404
    code = "init_image_missing"


class UnknownCheckpoint(UnknownName):
    """A checkpoint that an option names and nobody knows."""


class UnknownUpscaler(UnknownName):
    """An upscaler that a request names and nobody knows."""

    def __init__(self, field: str, value: str, known: Sequence[str]) -> None:
        self.name = _printable(value[:_SHOWN])
        super().__init__(field, value, known)


def refuse(status: int, code: str, detail: str, *, error: str = "HTTPException", errors: str = "") -> JSONResponse:
    """A refusal of an application: `{"error", "detail", "body", "errors"}`, all texts, and the code."""
    body = {"error": error, "detail": detail, "body": "", "errors": errors, "code": code}
    return JSONResponse(body, status_code=status)


def answer_error(error: DarkroomError) -> JSONResponse:
    """A refusal that Darkroom makes on purpose."""
    if isinstance(error, UnknownCheckpoint):
        # A1111: the name as sent, in single quotes; clients read it from `errors`.
        return refuse(
            error.http_status, error.code, str(error), error="RuntimeError", errors=f"model {error.value} not found"
        )
    if isinstance(error, ScriptRefused):
        return refuse(error.http_status, error.code, str(error), errors=error.hint)
    if isinstance(error, UnknownUpscaler):
        text = f"could not find upscaler named {error.name}"
        return refuse(error.http_status, error.code, str(error), error="AssertionError", errors=text)
    if isinstance(error, Frozen):
        return refuse(error.http_status, error.code, str(error), error="AssertionError", errors=str(error))
    if isinstance(error, BadImage):
        return refuse(error.http_status, error.code, f"Invalid encoded image: {error}")
    answer = refuse(error.http_status, error.code, str(error))
    if isinstance(error, ComeAgain):
        answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


def code_of(status: int) -> str:
    """The code of a refusal that a layer below makes."""
    return _CODES.get(status, BadRequest.code)


def install(app: FastAPI, other: Callable[[Request, HTTPException], JSONResponse | None]) -> None:
    """Make the application answer every error in these shapes; what the router refuses, in the shape that `other` gives
    it, if any.
    """

    @app.exception_handler(DarkroomError)
    async def on_darkroom_error(_: Request, error: DarkroomError) -> JSONResponse:
        if error.http_status >= 500:
            log.error("%s: %s", error.code, error)
        return answer_error(error)

    @app.exception_handler(OSError)
    async def on_os_error(_: Request, error: OSError) -> JSONResponse:
        if error.errno not in _STORAGE:
            raise error
        log.error("a file cannot be written or read: %s", error)
        named = f"{Path(os.fsdecode(error.filename)).name}: " if isinstance(error.filename, str | bytes) else ""
        return answer_error(FilesUnavailable(f"{named}{error.strerror}"))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        elsewhere = other(request, error)
        if elsewhere:
            return elsewhere
        if error.status_code in {404, 405}:
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        return refuse(error.status_code, code_of(error.status_code), str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        detail = [_describe(entry, error.body) for entry in error.errors()]
        return JSONResponse({"detail": detail, "code": BadRequest.code}, status_code=422)


def _describe(entry: Mapping[str, Any], body: object) -> dict[str, object]:
    """One violation. `input` is what was sent, shortened; everything else is as A1111 words it."""
    if entry["type"] == "json_invalid":
        return _describe_json(entry["loc"], str(entry["ctx"]["error"]), str(body))
    message, kind = _WORDING.get(entry["type"], (entry["msg"], entry["type"]))
    shown = "" if kind == "value_error.missing" else _shorten(entry.get("input"))
    limits = {"ctx": entry["ctx"]} if kind.startswith("value_error.number.") and entry.get("ctx") else {}
    return {"loc": list(entry["loc"]), "msg": message, "type": kind, "input": shown, **limits}


def _describe_json(loc: Sequence[int | str], message: str, body: str) -> dict[str, object]:
    position = int(loc[-1])
    line, column = body.count("\n", 0, position) + 1, position - body.rfind("\n", 0, position)
    return {
        "loc": ["body", position],
        "msg": f"{message}: line {line} column {column} (char {position})",
        "type": "value_error.jsondecode",
        "ctx": {"msg": message, "doc": _printable(body[:_SHOWN]), "pos": position, "lineno": line, "colno": column},
    }


def _shorten(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return _printable(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
