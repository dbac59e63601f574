import base64

import pytest
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve

ROUTE = "/sdapi/v1/samplers"


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.fixture
def guarded(serve: Serve) -> TestClient:
    return serve(api_auth="me:secret,you:other")


@pytest.mark.parametrize("header", ["Basic ", "Basic dW5kZWZpbmVk", "", "Bearer x"])
def test_without_passwords_the_header_is_nobodys_business(client: TestClient, header: str) -> None:
    assert client.get(ROUTE, headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize("text", ["me:secret", "you:other"])
def test_the_right_password_opens(guarded: TestClient, text: str) -> None:
    assert guarded.get(ROUTE, headers=basic(text)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Not authenticated"),
        ({"Authorization": "Bearer x"}, "Not authenticated"),
        ({"Authorization": "Basic ä"}, "Invalid authentication credentials"),
        ({"Authorization": "Basic !!!"}, "Invalid authentication credentials"),
        (basic("nocolon"), "Invalid authentication credentials"),
        (basic("me:wrong"), "Incorrect username or password"),
        (basic("me:other"), "Incorrect username or password"),
        (basic("nobody:secret"), "Incorrect username or password"),
        (basic("me:gehäim"), "Incorrect username or password"),
    ],
)
def test_everything_else_does_not(guarded: TestClient, headers: dict[str, str], detail: str) -> None:
    encoded = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
    answer = guarded.get(ROUTE, headers=encoded)
    assert answer.status_code == 401
    assert answer.json() == {
        "error": "HTTPException",
        "detail": detail,
        "body": "",
        "errors": "",
        "code": "unauthorized",
    }
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_a_password_is_asked_for_before_the_body_is_read(guarded: TestClient) -> None:
    assert guarded.post("/sdapi/v1/txt2img", content=b"{").status_code == 401
    assert guarded.post("/generate/", content=b"{").status_code == 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/openapi.json", "/internal/ping"])
def test_some_routes_are_never_guarded(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_a_preflight_needs_no_password(serve: Serve) -> None:
    client = serve(api_auth="me:secret", cors_allow_origins="http://ui")
    headers = {"Origin": "http://ui", "Access-Control-Request-Method": "POST"}
    answer = client.options("/sdapi/v1/txt2img", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "http://ui"


def test_an_origin_that_is_not_allowed_is_refused(client: TestClient) -> None:
    headers = {"Origin": "http://evil", "Access-Control-Request-Method": "POST"}
    answer = client.options("/sdapi/v1/txt2img", headers=headers)
    assert (answer.status_code, answer.text) == (400, "Disallowed CORS origin")
    assert "Access-Control-Allow-Origin" not in client.get(ROUTE, headers={"Origin": "http://evil"}).headers
