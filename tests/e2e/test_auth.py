"""`--api-auth`: no picture without the password; a password where none is set does not matter."""

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.serving import Server, serving

SMALL = {"prompt": "apple", "steps": 1, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("guarded"), "--api-auth", "me:secret,you:other") as server:
        yield server


def test_without_or_with_a_wrong_password_nothing_is_drawn(guarded: Server) -> None:
    for auth in (None, ("me", "other"), ("", "")):
        answer = httpx.post(guarded.url + "/sdapi/v1/txt2img", json=SMALL, auth=auth, timeout=30)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_each_user_gets_in_with_their_own_password(guarded: Server) -> None:
    for auth in (("me", "secret"), ("you", "other")):
        answer = httpx.post(guarded.url + "/sdapi/v1/txt2img", json=SMALL, auth=auth, timeout=60)
        assert answer.status_code == 200


def test_the_other_way_to_draw_is_guarded_too(guarded: Server) -> None:
    assert httpx.post(guarded.url + "/generate/", json={"prompt": "apple"}, timeout=30).status_code == 401


def test_health_needs_no_password(guarded: Server) -> None:
    assert httpx.get(guarded.url + "/health").status_code == 200
    assert httpx.get(guarded.url + "/ready").status_code == 200


def test_the_password_is_not_in_the_log(guarded: Server) -> None:
    assert "secret" not in guarded.log.read_text()


@pytest.mark.parametrize("header", ["Basic ", "Basic dW5kZWZpbmVk", "", "Bearer x"])
def test_a_password_where_none_is_set_is_ignored(server: Server, header: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)  # httpx refuses to send "Basic "
    connection.request("GET", "/sdapi/v1/samplers", headers={"Authorization": header})
    assert connection.getresponse().status == 200
    connection.close()
