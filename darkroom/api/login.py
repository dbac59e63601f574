"""`/login` and `/logout`: whether a user's password is right, and a cookie for browsers that says so from then on."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from darkroom.api.addresses import address_of
from darkroom.api.answers import refuse
from darkroom.api.auth import Gate
from darkroom.api.login_page import login_page, own_path
from darkroom.errors import ComeAgain, Unauthorized

router = APIRouter(tags=["server"])

_MAX_BYTES = 4096

_DOCUMENTED = {
    "requestBody": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "username": {"type": "string", "description": "A user of this server."},
                        "password": {"type": "string", "description": "The user's password."},
                        "next": {"type": "string", "description": "The path that a browser is led to afterwards."},
                    },
                }
            }
        }
    }
}


def get_gate(request: Request) -> Gate:
    """The gate of the application that serves a request."""
    gate = request.app.state.gate
    assert isinstance(gate, Gate)
    return gate


Guarding = Annotated[Gate, Depends(get_gate)]


@router.get("/login", response_class=HTMLResponse)
async def show_login(
    request: Request,
    gate: Guarding,
    following: Annotated[str, Query(alias="next", description="The path that is shown afterwards.")] = "",
) -> Response:
    """The page that asks for a password. Who needs none, or is logged in, is led on."""
    root = request.scope.get("root_path", "")
    path = own_path(following, f"{root}/")
    if not gate.is_closed or gate.find_session(request.headers):
        return RedirectResponse(path, 303, {"Cache-Control": "no-store"})
    return login_page(root, path)


@router.post("/login", openapi_extra=_DOCUMENTED, response_class=JSONResponse)
async def login(request: Request, gate: Guarding) -> Response:
    """Try a password, and get a cookie if it is right. A1111: the login form of its web framework; clients post to it
    first, with or without fields.

    Where no password is set, every one is right.
    """
    fields = dict(parse_qsl((await _read(request)).decode("utf-8", "replace"), keep_blank_values=True))
    root, user = request.scope.get("root_path", ""), fields.get("username", "")
    following = own_path(fields.get("next", ""), f"{root}/")
    answer: Response = (
        RedirectResponse(following, 303, {"Cache-Control": "no-store"})
        if wants_page(request)
        else JSONResponse({"success": True})
    )
    if not gate.is_closed:
        return answer
    try:
        token = await gate.log_in(f"{user}:{fields.get('password', '')}".encode(), address_of(request.scope))
    except Unauthorized as error:
        if wants_page(request):
            return login_page(root, following, trouble="Wrong user name or password.", user=user, status=400)
        return refuse(400, error.code, "Incorrect credentials.")
    except ComeAgain as error:
        if not wants_page(request):
            raise
        page = login_page(root, following, trouble=f"{error}.".capitalize(), user=user, status=error.http_status)
        page.headers["Retry-After"] = str(error.retry_after_s)
        return page
    gate.sessions.set_cookie(answer, request.scope, token)
    return answer


@router.post("/logout", response_class=JSONResponse)
async def logout(request: Request, gate: Guarding) -> Response:
    """Have the browser forget its cookie."""
    answer: Response = JSONResponse({"success": True})
    if wants_page(request):
        answer = RedirectResponse(f"{request.scope.get('root_path', '')}/login", 303, {"Cache-Control": "no-store"})
    gate.sessions.set_cookie(answer, request.scope, "")
    return answer


def wants_page(request: Request) -> bool:
    """Whether it is a person's browser that asks."""
    return "text/html" in request.headers.get("accept", "")


async def _read(request: Request) -> bytes:
    """The body, which anybody may send and nobody may make long. Raises HTTPException."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BYTES:
            raise HTTPException(413, f"a form for a password has no more than {_MAX_BYTES} bytes")
    return bytes(body)
