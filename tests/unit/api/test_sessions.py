"""Logins of browsers: the page, the cookie, and what a cookie alone may do."""

import html
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from darkroom.api.brake import BURST
from darkroom.api.login_page import own_path
from darkroom.api.sessions import Sessions
from darkroom.credentials import Credentials, write
from tests.unit.api.conftest import Serve
from tests.unit.api.test_auth import cheap

LIST = "/sdapi/v1/samplers"
CHANGE = "/sdapi/v1/interrupt"
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OWN = {"Sec-Fetch-Site": "same-origin"}
ME = {"username": "me", "password": "secret"}


@pytest.fixture
def guarded(serve: Serve) -> TestClient:
    return serve(api_auth="me:secret,you:other")


def log_in(client: TestClient, user: str = "me", password: str = "secret") -> str:
    """Keeps the cookie in the client, and gives the header that set it."""
    answer = client.post("/login", data={"username": user, "password": password})
    assert answer.json() == {"success": True}
    return str(answer.headers["set-cookie"])


def test_a_login_opens_what_the_password_opens(guarded: TestClient) -> None:
    assert guarded.get(LIST).status_code == 401
    log_in(guarded)
    assert guarded.get(LIST).status_code == 200
    assert guarded.get("/jobs").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(guarded: TestClient) -> None:
    cookie = log_in(guarded)
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=604800"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "secret" not in cookie


def test_under_tls_the_cookie_is_never_sent_in_clear(guarded: TestClient) -> None:
    client = TestClient(guarded.app, base_url="https://testserver", follow_redirects=False)
    assert "Secure" in log_in(client)


def test_below_a_subpath_the_cookie_is_for_that_path(guarded: TestClient) -> None:
    client = TestClient(guarded.app, root_path="/sd", follow_redirects=False)
    answer = client.post("/sd/login", data={**ME, "next": "/sd/ui/"}, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sd/ui/")
    assert "Path=/sd;" in answer.headers["set-cookie"]
    elsewhere = TestClient(guarded.app, root_path="/sd", follow_redirects=False).get("/sd/ui/", headers=PAGE)
    assert elsewhere.headers["location"] == "/sd/login?next=/sd/ui/"


def test_a_wrong_cookie_opens_nothing(guarded: TestClient) -> None:
    log_in(guarded)
    [(name, token)] = guarded.cookies.items()
    head, _, seal = token.rpartition(".")
    user, _, expires = head.partition(".")
    forged = [
        "", ".", "..", "x", token[:-1], token + "0", f"{head}.", f"{user}.{int(expires) + 1}.{seal}",
        f"eW91.{expires}.{seal}",
        f"{user}.-1.{seal}", f"ä.{expires}.{seal}", "x" * 5000, f"{user}.{expires}", f"%.{expires}.{seal}",
    ]  # fmt: skip
    for value in forged:
        bare = TestClient(guarded.app, follow_redirects=False)
        answer = bare.get(LIST, headers=[(b"cookie", f"{name}={value}".encode())])
        assert answer.status_code == 401, value


def test_a_wrong_header_is_not_made_good_by_a_cookie(guarded: TestClient) -> None:
    log_in(guarded)
    assert guarded.get(LIST, auth=("me", "wrong")).status_code == 401


def test_a_login_ends_with_its_time() -> None:
    now = [1000.0]
    sessions = Sessions(secret=b"s", valid_s=60, clock=lambda: now[0])
    token = sessions.issue("ann", b"mark")
    assert sessions.find_user(token, lambda _: [b"mark"]) == "ann"
    now[0] += 60
    assert sessions.find_user(token, lambda _: [b"mark"]) is None


@given(user=st.text(min_size=1, max_size=64), other=st.binary(max_size=8))
def test_a_token_counts_for_its_user_its_password_and_its_server_alone(user: str, other: bytes) -> None:
    user = user.encode("utf-8", "replace").decode()
    sessions = Sessions(secret=b"s", valid_s=60)
    token = sessions.issue(user, b"mark")
    assert sessions.find_user(token, lambda name: [b"old", b"mark"] if name == user else []) == user
    assert sessions.find_user(token, lambda _: []) is None
    assert sessions.find_user(token, lambda _: [other]) is None
    assert Sessions(secret=b"t", valid_s=60).find_user(token, lambda _: [b"mark"]) is None
    kept = Headers({"cookie": f"a=b; {sessions.cookie}={token}"})
    assert sessions.token_of(kept) == token


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_a_login_ends_when_the_user_is_removed_or_gets_another_password(
    serve: Serve, tmp_path: Path, change: str
) -> None:
    file = tmp_path / "credentials"
    write(file, Credentials(users={"alice": cheap("wonderland"), "bob": cheap("builder!")}))
    client = serve(api_auth_file=file)
    log_in(client, "alice", "wonderland")
    write(file, Credentials(users={"alice": cheap("wonderland"), "carol": cheap("singing!")}))
    assert client.get(LIST).status_code == 200
    users = {"carol": cheap("singing!")} | ({"alice": cheap("looking-glass")} if change == "changed" else {})
    write(file, Credentials(users=users))
    assert client.get(LIST).status_code == 401


def test_a_login_outlives_the_server_and_ends_with_the_setting(serve: Serve) -> None:
    first = serve(api_auth="me:secret")
    log_in(first)
    cookies = dict(first.cookies)
    for password, status in (("secret", 200), ("other", 401)):
        again = serve(api_auth=f"me:{password}")
        again.cookies.update(cookies)
        assert again.get(LIST).status_code == status


def test_each_sees_his_or_her_own(guarded: TestClient) -> None:
    log_in(guarded, "you", "other")
    answer = guarded.post(
        "/sdapi/v1/txt2img", json={"steps": 1, "width": 64, "height": 64}, headers={**OWN, "Prefer": "respond-async"}
    )
    assert answer.json()["owner"] == "you"


def test_logging_out_makes_the_browser_forget(guarded: TestClient) -> None:
    log_in(guarded)
    assert guarded.post("/logout").json() == {"success": True}
    assert not guarded.cookies
    assert guarded.get(LIST).status_code == 401
    page = guarded.post("/logout", headers=PAGE)
    assert (page.status_code, page.headers["location"]) == (303, "/login")


# Pages


@pytest.mark.parametrize("path", ["/", "/ui/", "/jobs?state=done", "/images/abc/file", "/ui/a%20b?x=%2F&y=1"])
def test_a_browser_is_led_to_the_page_that_asks_for_a_password(guarded: TestClient, path: str) -> None:
    answer = guarded.get(path, headers=PAGE)
    assert answer.status_code == 303
    target = urlsplit(answer.headers["location"])
    assert target.path == "/login"
    [wanted] = parse_qs(target.query)["next"]
    assert wanted == path
    after = guarded.post("/login", data={**ME, "next": wanted}, headers=PAGE)
    assert (after.status_code, after.headers["location"]) == (303, path)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Accept": "application/json"}, {"Accept": "*/*"}, {**PAGE, "Sec-Fetch-Mode": "cors"}],
)
def test_everybody_else_is_told_as_ever(guarded: TestClient, headers: dict[str, str]) -> None:
    answer = guarded.get("/jobs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_what_a_browser_is_not_led_away_from(guarded: TestClient) -> None:
    for path in (LIST, "/internal/sysinfo", "/v1/models"):
        assert guarded.get(path, headers=PAGE).status_code == 401
    assert guarded.post("/jobs/x/rerun", headers=PAGE).status_code == 401
    assert guarded.get("/jobs", headers=PAGE, auth=("me", "wrong")).status_code == 401


def test_a_script_of_an_own_page_makes_the_browser_open_no_window(guarded: TestClient) -> None:
    answer = guarded.get(LIST, headers={**OWN, "Sec-Fetch-Mode": "cors"})
    assert answer.status_code == 401
    assert "WWW-Authenticate" not in answer.headers


def test_the_page_asks_for_a_password_and_loads_nothing(guarded: TestClient) -> None:
    page = guarded.get("/login", params={"next": '/ui/?a="><script>'})
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert "<script" not in page.text
    labels = set(re.findall(r'<label for="(\w+)"', page.text))
    assert labels == {"username", "password"}
    assert '<html lang="en">' in page.text


def next_field(page: str) -> str:
    [found] = re.findall(r'name="next" type="hidden" value="([^"]*)"', page)
    return html.unescape(found)


STRANGERS = [
    "https://evil.example", "//evil.example", "/\\evil.example", "\\/evil.example", "///evil.example",
    "/\t/evil.example",
    "/\n/evil.example", " //evil.example", "javascript:alert(1)", "evil.example", "", "/ui\r\nSet-Cookie: a=b",
    "/\x00/e",
    "/" + "x" * 3000, "/ /evil.example", "http:/evil.example",
]  # fmt: skip


@pytest.mark.parametrize("wanted", STRANGERS)
def test_nobody_is_led_elsewhere_after_logging_in(guarded: TestClient, wanted: str) -> None:
    assert next_field(guarded.get("/login", params={"next": wanted}).text) == "/"
    answer = guarded.post("/login", data={**ME, "next": wanted}, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert guarded.get("/login", params={"next": wanted}, headers=PAGE).headers["location"] == "/"  # logged in by now


@given(st.text(max_size=40))
def test_what_is_led_to_stays_on_this_server(text: str) -> None:
    found = own_path(text, "/home")
    assert found == "/home" or (found == text and urlsplit("http://here" + text).netloc == "here")
    assert not found.startswith(("//", "/\\"))


def test_a_wrong_password_brings_the_page_again_and_says_so(guarded: TestClient) -> None:
    page = guarded.post("/login", data={"username": 'm"e', "password": "no", "next": "/ui/"}, headers=PAGE)
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert 'value="m&quot;e"' in page.text
    assert next_field(page.text) == "/ui/"
    assert "set-cookie" not in page.headers


def test_a_browser_too_is_slowed_down(guarded: TestClient) -> None:
    for _ in range(BURST):
        guarded.post("/login", data={"username": "me", "password": "no"}, headers=PAGE)
    page = guarded.post("/login", data=ME, headers=PAGE)
    assert page.status_code == 429
    assert int(page.headers["Retry-After"]) > 0
    assert "Too many attempts" in page.text


def test_where_nobody_needs_a_password_the_page_leads_on(client: TestClient) -> None:
    answer = client.get("/login", params={"next": "/docs"}, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs")
    answer = client.post("/login", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "set-cookie" not in answer.headers


# What a cookie alone may do


@pytest.fixture
def logged_in(guarded: TestClient) -> TestClient:
    log_in(guarded)
    return guarded


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://testserver:3000"}, 403),
        ({"Origin": "http://testserver"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_a_cookie_changes_something_only_for_an_own_page(
    logged_in: TestClient, headers: dict[str, str], status: int
) -> None:
    assert logged_in.post(CHANGE, headers=headers).status_code == status


def test_with_a_password_beside_it_a_cookie_is_not_looked_at(logged_in: TestClient) -> None:
    assert logged_in.post(CHANGE, auth=("me", "secret")).status_code == 200


def test_a_cookie_may_read(logged_in: TestClient) -> None:
    assert logged_in.get(LIST, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_web_socket_is_opened_for_an_own_page_alone(logged_in: TestClient) -> None:
    for headers in ({}, {"Origin": "http://evil.example"}):
        with pytest.raises(WebSocketDisconnect) as turned, logged_in.websocket_connect("/jobs/x/ws", headers=headers):
            pass
        assert "page" in turned.value.reason
    with logged_in.websocket_connect("/jobs/x/ws", headers={"Origin": "http://testserver"}) as socket:
        assert socket.receive()["code"] == 1008  # there is no such job


# A1111's other setting for users


def test_users_of_the_web_ui_may_be_given_as_a1111_takes_them(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:a , ben:b:c\n\n cleo : d\n")
    client = serve(gradio_auth="me:secret,you:other", gradio_auth_path=file, api_auth="me:stronger")
    for pair in (("ann", "a"), ("ben", "b:c"), ("you", "other"), ("me", "stronger")):
        assert client.get(LIST, auth=pair).status_code == 200, pair
    assert client.get(LIST, auth=("me", "secret")).status_code == 401


@pytest.mark.parametrize(
    "settings",
    [{"gradio_auth": "me"}, {"gradio_auth": "me:"}, {"gradio_auth": " , "}, {"gradio_auth_path": "/nowhere/users"}],
)
def test_users_that_cannot_be_read_are_refused_at_the_start(serve: Serve, settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="gradio_auth"):
        serve(**settings)
