import base64
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from darkroom.api.auth import OPEN, OPEN_BELOW
from darkroom.api.brake import BURST
from darkroom.credentials import Credentials, PasswordHash, write
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


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_name_may_be_encoded_as_browsers_or_as_old_programs_do_it(serve: Serve, encoding: str) -> None:
    client = serve(api_auth="zoë:käse")
    packed = base64.b64encode("zoë:käse".encode(encoding)).decode()
    assert status(client, Authorization=f"Basic {packed}") == 200


@pytest.mark.parametrize(
    "pair",
    ["", ":", "me:", ":secret", "ME:secret", "me:secret ", " me:secret", "me:secret\0", "me:secret,you", "m" * 60_000],
)
def test_nothing_but_the_very_password_opens(guarded: TestClient, pair: str) -> None:
    assert status(guarded, **basic(pair)) == 401


def test_a_password_is_asked_for_before_the_body_is_read(guarded: TestClient) -> None:
    assert guarded.post("/sdapi/v1/txt2img", content=b"{").status_code == 401
    assert guarded.post("/generate/", content=b"{").status_code == 401


def requests_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """A method and a path for every route there is, those inside of others included."""
    for route in routes:
        inner: Any = getattr(route, "original_router", None) or route
        if isinstance(inner, APIRoute) or not getattr(inner, "routes", None):
            path = re.sub(r"{[^}]*}", "x", getattr(inner, "path", ""))
            yield from ((method, path) for method in getattr(inner, "methods", None) or {"GET"})
        else:
            yield from requests_of(inner.routes)


def test_every_route_asks_for_a_password_but_those_that_are_named(serve: Serve) -> None:
    client = serve(api_auth="me:secret", api_server_stop=True)
    requests = {entry for entry in requests_of(client.app.routes) if entry[1]}  # type: ignore[attr-defined]
    assert len(requests) > 60
    assert ("POST", "/sdapi/v1/server-kill") in requests
    for method, path in sorted(requests):
        open_to_all = path in OPEN or f"{path}/".startswith(OPEN_BELOW)
        answer = None if open_to_all else client.request(method, path)
        assert answer is None or answer.status_code == 401, (method, path)


def test_what_is_no_route_asks_too(guarded: TestClient) -> None:
    for path in ("/", "/config", "/nothing", "/health/", "/docs/../sdapi/v1/samplers", "//health", "/HEALTH"):
        assert guarded.get(path).status_code == 401, path


@pytest.mark.parametrize(
    "path",
    [
        "//sdapi/v1/samplers", "/sdapi//v1/samplers", "/sdapi/v1/samplers/", "/SDAPI/v1/samplers",
        "/sdapi/v1/samplers;x", "/sdapi/v1/samplers%3f", "/%73dapi/v1/samplers", "/sdapi/v1/%2e%2e/v1/samplers",
        "/docs%2f..%2fsdapi/v1/samplers",
        "/static-offline-docs/../sdapi/v1/samplers", "/static-offline-docs/%2e%2e/sdapi/v1/samplers", "/health%00",
        "/health/../sdapi/v1/samplers", "/internal/ping/", "/internal/progress", "/sdapi/v1/samplers?/health",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "NONSENSE"])
def test_no_way_of_writing_a_path_leads_around_the_gate(guarded: TestClient, method: str, path: str) -> None:
    answer = guarded.request(method, path)
    refusals = {401, 404, 405} if path.startswith(OPEN_BELOW) else {401}
    assert answer.status_code in refusals, answer.text
    assert "DPM++" not in answer.text


def test_a_web_socket_is_turned_away(guarded: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), guarded.websocket_connect("/queue/join"):
        pass


def test_below_a_subpath_the_same_routes_are_open(serve: Serve) -> None:
    app = serve(api_auth="me:secret").app
    client = TestClient(app, root_path="/sd")  # as the server puts it in front of every path
    assert client.get("/sd/health").status_code == 200
    assert client.get("/sd" + ROUTE).status_code == client.get("/sd/healthy").status_code == 401


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


def cheap(password: str) -> PasswordHash:
    """A hash that costs nothing."""
    blank = PasswordHash(salt=bytes(16), digest=b"", cost=2, blocks=1, lanes=1)
    digest = blank._hash(password.encode())
    return PasswordHash(salt=bytes(16), digest=digest, cost=2, blocks=1, lanes=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    write(path, Credentials(users={"alice": cheap("wonderland"), "bob": cheap("builder!")}))
    return path


def status(client: TestClient, **headers: str) -> int:
    return int(client.get(ROUTE, headers=headers).status_code)


def test_users_of_the_file_and_of_the_settings_get_in(serve: Serve, file: Path) -> None:
    client = serve(api_auth_file=file, api_auth="me:secret")
    for pair in ("alice:wonderland", "alice:wonderland", "bob:builder!", "me:secret"):
        assert status(client, **basic(pair)) == 200
    for pair in ("alice:builder!", "bob:wonderland", "me:wonderland", "carol:secret", ":", "alice:"):
        assert status(client, **basic(pair)) == 401
    assert client.get(ROUTE).status_code == 401


def test_a_key_opens_every_route_and_no_other_text_does(serve: Serve, file: Path) -> None:
    credentials, key = Credentials().with_key("program")
    write(file, credentials)
    client = serve(api_auth_file=file)
    assert status(client, Authorization=f"Bearer {key}") == status(client, Authorization=f"bearer  {key} ") == 200
    for wrong in (key[:-1], key + "x", "", "program"):
        assert status(client, Authorization=f"Bearer {wrong}") == 401
    assert status(client, Authorization=key) == 401
    assert status(client, **basic(f"program:{key}")) == 401


@pytest.mark.parametrize("separator", [",", "\n", " , "])
def test_users_and_keys_may_be_given_by_their_hashes_in_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, separator: str
) -> None:
    credentials, key = Credentials(users={"alice": cheap("wonderland")}).with_key("program")
    write(tmp_path / "hashes", credentials)
    lines = (tmp_path / "hashes").read_text().splitlines()
    monkeypatch.setenv("DARKROOM_API_AUTH_HASHED", separator.join(lines))
    client = serve()
    assert status(client, **basic("alice:wonderland")) == status(client, Authorization=f"Bearer {key}") == 200
    assert status(client, **basic("alice:other")) == status(client) == 401
    assert "scrypt" not in client.get("/internal/sysinfo", auth=("alice", "wonderland")).text


def test_a_file_and_the_environment_add_up_and_the_file_can_be_changed(serve: Serve, file: Path) -> None:
    write(file.with_name("hashes"), Credentials(users={"alice": cheap("environment"), "dora": cheap("explorer")}))
    client = serve(api_auth_file=file, api_auth_hashed=file.with_name("hashes").read_text())
    for pair in ("alice:wonderland", "bob:builder!", "dora:explorer"):
        assert status(client, **basic(pair)) == 200
    assert status(client, **basic("alice:environment")) == 401
    file.unlink()
    assert status(client, **basic("bob:builder!")) == 401
    assert status(client, **basic("dora:explorer")) == 200


def test_a_running_server_notices_who_comes_and_who_goes(serve: Serve, file: Path) -> None:
    client = serve(api_auth_file=file)
    assert status(client, **basic("alice:wonderland")) == 200
    write(file, Credentials(users={"carol": cheap("singing!")}))
    assert status(client, **basic("alice:wonderland")) == 401
    assert status(client, **basic("carol:singing!")) == 200


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_by_a_file_that_cannot_be_read_nobody_gets_in(serve: Serve, file: Path, damage: str) -> None:
    client = serve(api_auth_file=file, api_auth="me:secret")
    assert status(client, **basic("alice:wonderland")) == 200
    file.unlink() if damage == "gone" else file.write_text("user alice wonderland")
    assert status(client, **basic("alice:wonderland")) == 401
    assert status(client, **basic("me:secret")) == 200


def test_whoever_guesses_is_slowed_down_and_told_for_how_long(guarded: TestClient) -> None:
    for _ in range(BURST):
        assert status(guarded, **basic("me:guess")) == 401
    for pair in ("me:guess", "me:secret"):
        answer = guarded.get(ROUTE, headers=basic(pair))
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_attempts")
        assert 1 <= int(answer.headers["Retry-After"]) <= 10
    assert guarded.get(ROUTE).status_code == 401
    assert guarded.get("/health").status_code == 200


def test_the_right_password_may_be_shown_as_often_as_one_likes(guarded: TestClient) -> None:
    assert {status(guarded, **basic("me:secret")) for _ in range(BURST * 3)} == {200}


def test_many_requests_at_once_with_the_same_password_are_one_attempt(serve: Serve, file: Path) -> None:
    slow = Credentials().with_user("alice", "wonderland")
    write(file, slow)
    client = serve(api_auth_file=file)
    with ThreadPoolExecutor(BURST * 2) as pool:
        answers = list(pool.map(lambda _: status(client, **basic("alice:wonderland")), range(BURST * 2)))
    assert set(answers) == {200}


def test_a_key_still_opens_where_someone_else_behind_the_address_guesses(serve: Serve, file: Path) -> None:
    credentials, key = Credentials(users={"alice": cheap("wonderland")}).with_key("program")
    write(file, credentials)
    client = serve(api_auth_file=file)
    for _ in range(BURST + 1):
        status(client, Authorization="Bearer guess")
    assert status(client, Authorization="Bearer guess") == 429
    assert status(client, **basic("alice:wonderland")) == 429
    assert status(client, Authorization=f"Bearer {key}") == 200


def test_the_login_form_tells_whether_a_password_is_right(guarded: TestClient) -> None:
    right = guarded.post("/login", data={"username": "me", "password": "secret"})
    assert (right.status_code, right.json()) == (200, {"success": True})
    assert "set-cookie" in right.headers
    wrong = guarded.post("/login", data={"username": "me", "password": "wrong"})
    assert (wrong.status_code, wrong.json()["detail"]) == (400, "Incorrect credentials.")
    assert guarded.post("/login").status_code == 400


def test_the_login_form_is_no_way_around_the_brake(guarded: TestClient) -> None:
    codes = [guarded.post("/login", data={"username": "me", "password": str(n)}).status_code for n in range(BURST + 1)]
    assert codes == [400] * BURST + [429]
    assert status(guarded, **basic("me:secret")) == 429


def test_the_login_form_reads_no_more_than_a_form_can_need(guarded: TestClient) -> None:
    answer = guarded.post("/login", content=b"username=me&password=secret&x=" + b"x" * 5000)
    assert answer.status_code == 413


def test_without_passwords_every_login_is_welcome(client: TestClient) -> None:
    assert client.post("/login").json() == {"success": True}
    assert client.post("/login", data={"username": "a", "password": "b"}).status_code == 200


def test_no_password_is_shown_by_any_route(serve: Serve, file: Path) -> None:
    client = serve(api_auth_file=file, api_auth="me:topsecret")
    for path in ("/sdapi/v1/cmd-flags", "/internal/sysinfo", "/sdapi/v1/options", "/openapi.json"):
        answer = client.get(path, auth=("me", "topsecret"))
        assert answer.status_code == 200
        assert "topsecret" not in answer.text
        assert "scrypt" not in answer.text
