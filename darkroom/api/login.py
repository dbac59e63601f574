"""`POST /login`: whether a user's password is right. Sets no cookie: every request shows its credentials anew."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from darkroom.api.addresses import address_of
from darkroom.api.answers import refuse
from darkroom.api.auth import Gate
from darkroom.errors import Unauthorized

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


@router.post("/login", openapi_extra=_DOCUMENTED, response_class=JSONResponse)
async def login(request: Request, gate: Annotated[Gate, Depends(get_gate)]) -> JSONResponse:
    """Try a password. A1111: the login form of its web framework; clients post to it first, with or without fields.

    Where no password is set, every one is right.
    """
    if gate.is_closed:
        fields = dict(parse_qsl((await _read(request)).decode("utf-8", "replace")))
        pair = f"{fields.get('username', '')}:{fields.get('password', '')}".encode()
        try:
            await gate.check_password(pair, address_of(request.scope))
        except Unauthorized as error:
            return refuse(400, error.code, "Incorrect credentials.")
    return JSONResponse({"success": True})


async def _read(request: Request) -> bytes:
    """The body, which anybody may send and nobody may make long. Raises HTTPException."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BYTES:
            raise HTTPException(413, f"a form for a password has no more than {_MAX_BYTES} bytes")
    return bytes(body)
