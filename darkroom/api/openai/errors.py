"""OpenAI's shape of a refusal, and the class of routes that answers every refusal in it."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from darkroom.api import answers
from darkroom.api.addresses import route_of
from darkroom.errors import BadRequest, DarkroomError

log = logging.getLogger(__name__)

PREFIX = "/v1/"
"""Where these shapes are expected."""

_PARAMS = {
    "batch_size": "n",
    "n_iter": "n",
    "batch_size * n_iter": "n",
    "width": "size",
    "height": "size",
    "width x height": "size",
    "init_images[0]": "image",
    "init_images": "image",
    "denoising_strength": "strength",
    "override_settings.jpeg_quality": "output_compression",
}
"""What the fields of the engine's requests are called here, where they are not called the same."""


class ParameterError(BadRequest):
    """A field of one of these requests that is wrong, under the name that it has here."""

    http_status = 400


class UnknownModelError(ParameterError):
    """A model that is not there."""

    http_status = 404
    code = "model_not_found"

    def __init__(self, name: str, known: str) -> None:
        super().__init__("model", name, f"known: {known}")


def refuse(status: int, message: str, *, code: str | None = None, param: str | None = None) -> JSONResponse:
    """A refusal. A field that is wrong is 400 here, not 422."""
    status = 400 if status == 422 else status
    if status == 401:
        kind = "authentication_error"
    elif status == 429:
        kind = "rate_limit_error"
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def answer_error(error: DarkroomError) -> JSONResponse:
    """A refusal that Darkroom makes on purpose."""
    param, message = None, str(error)
    if isinstance(error, BadRequest):
        param = _PARAMS.get(error.field, error.field)
        message = message if param == error.field else f"{param}: {message}"
    answer = refuse(error.http_status, message, code=error.code, param=param)
    wait = answers.answer_error(error).headers.get("Retry-After")
    if wait:
        answer.headers["Retry-After"] = wait
    return answer


def answer_http_error(request: Request, error: HTTPException) -> JSONResponse | None:
    """A refusal of the router, such as that of an unknown path; None where these shapes are not expected."""
    if not route_of(request.scope).startswith(PREFIX):
        return None
    answer = refuse(error.status_code, str(error.detail), code=answers.code_of(error.status_code))
    answer.headers.update(error.headers or {})
    return answer


class OpenAIRoute(APIRoute):
    """A route whose refusals have OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with its refusals answered."""
        handle = super().get_route_handler()

        async def handle_and_refuse(request: Request) -> Response:
            try:
                return await handle(request)
            except DarkroomError as error:
                if error.http_status >= 500:
                    log.error("%s: %s", error.code, error)
                return answer_error(error)
            except RequestValidationError as error:
                first = error.errors()[0]
                param = None if first["type"] == "json_invalid" else str(first["loc"][-1])
                message = first["msg"] if param in {None, "body"} else f"{param}: {first['msg']}"
                return refuse(400, message, code=BadRequest.code, param=param)
            except HTTPException as error:
                return refuse(error.status_code, str(error.detail), code=answers.code_of(error.status_code))

        return handle_and_refuse
