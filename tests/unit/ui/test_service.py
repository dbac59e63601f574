import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from darkroom.ui.mount import APPLICATION
from darkroom.ui.service import FieldError, Refused, refusal, service_of


@pytest.fixture
def seen() -> FastAPI:
    """An application that tells how it was asked."""
    app = FastAPI()

    @app.api_route("/told", methods=["GET", "POST", "PUT", "DELETE"])
    async def told(request: Request) -> dict[str, object]:
        body = await request.body()
        return {
            "method": request.method,
            "headers": dict(request.headers),
            "query": request.url.query,
            "body": body.decode(),
            "client": request.client.host if request.client else "",
        }

    return app


def scope(app: FastAPI, **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {APPLICATION: app, "headers": raw, "client": ("10.1.2.3", 5)}


def ask(scope: dict[str, Any], method: str, *arguments: Any, **named: Any) -> Any:
    """What one method of the service answers."""

    async def carry() -> Any:
        async with service_of(scope) as api:
            return await getattr(api, method)(*arguments, **named)

    return asyncio.run(carry())


def test_the_viewers_credentials_and_address_go_along_and_nothing_else(seen: FastAPI) -> None:
    sent = scope(seen, authorization="Basic abc", cookie="session=1", host="evil.example", x_forwarded_for="9.9.9.9")
    told = ask(sent, "get", "/told")
    assert (told["headers"]["authorization"], told["headers"]["cookie"]) == ("Basic abc", "session=1")
    assert (told["headers"]["host"], told["client"]) == ("127.0.0.1", "10.1.2.3")
    assert "x-forwarded-for" not in told["headers"]


def test_every_method_sends_what_it_is_given(seen: FastAPI) -> None:
    assert ask(scope(seen), "get", "/told", a=1, b=None)["query"] == "a=1"
    assert ask(scope(seen), "post", "/told", {"x": 1})["body"] == '{"x":1}'
    assert ask(scope(seen), "put", "/told", [1])["method"] == "PUT"
    assert ask(scope(seen), "delete", "/told", forget=True)["query"] == "forget=true"
    assert ask(scope(seen), "submit", "/told", {})["headers"]["prefer"] == "respond-async"


def test_what_the_api_refuses_is_raised(seen: FastAPI) -> None:
    with pytest.raises(Refused, match="Not Found") as raised:
        ask(scope(seen), "get", "/nowhere")
    assert raised.value.status == 404


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"detail": "steps: 0 is not allowed; at least 1", "code": "x"}, [("steps", "0 is not allowed; at least 1")]),
        ({"detail": "infotext (Steps): bad"}, [("infotext", "bad")]),
        ({"detail": [{"loc": ["body", "width"], "msg": "too wide"}]}, [("width", "too wide")]),
        ({"detail": [{"loc": [], "msg": "odd"}]}, [("", "odd")]),
        ({"detail": "", "errors": "all is lost"}, [("", "all is lost")]),
        ({"detail": "the database of jobs: gone"}, [("", "the database of jobs: gone")]),
        (["a list"], [("", "Unprocessable Entity")]),
        ({}, [("", "Unprocessable Entity")]),
    ],
)
def test_a_refusal_is_read_field_by_field(body: object, errors: list[tuple[str, str]]) -> None:
    found = refusal(httpx.Response(422, json=body))
    assert found.errors == tuple(FieldError(field=field, text=text) for field, text in errors)


def test_an_answer_that_is_no_json_is_refused_in_its_own_words() -> None:
    assert str(refusal(httpx.Response(502, text="<html>"))) == "Bad Gateway"
