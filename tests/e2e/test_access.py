"""Who gets in, and how: keys, HTTPS, a reverse proxy's path, and what old clients ask before they want a picture."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.serving import Server, darkroom, serving

SMALL = {"prompt": "apple", "steps": 1, "width": 64, "height": 64}
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "credentials"


@pytest.fixture(scope="module")
def key(key_file: Path) -> str:
    done = darkroom("key", "add", "program", "--api-auth-file", str(key_file), cwd=key_file.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, key_file: Path, key: str) -> Iterator[Server]:
    """A server with a file of credentials, behind HTTPS where a certificate can be made, below a path, and strict."""
    folder = tmp_path_factory.mktemp("guarded")
    flags = ["--api-auth-file", str(key_file), "--subpath", "studio", "--strict"]
    certificate = folder / "certificate.pem" if shutil.which("openssl") else None
    if certificate:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem"]
        names = ["-subj", "/CN=darkroom", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command, "-out", certificate.name, *names], cwd=folder, check=True, capture_output=True)
        flags += ["--tls-keyfile", str(folder / "key.pem"), "--tls-certfile", str(certificate)]
    with serving(folder, *flags, trusted=certificate) as server:
        yield server


def test_a_key_draws_and_without_one_nothing_is_drawn(guarded: Server, key: str) -> None:
    bearer = {"Authorization": f"Bearer {key}"}
    assert guarded.client.post("/sdapi/v1/txt2img", json=SMALL, headers=bearer).status_code == 200
    assert guarded.client.post("/sdapi/v1/txt2img", json=SMALL).status_code == 401
    assert guarded.client.post("/v1/images/generations", json={"prompt": "apple"}).status_code == 401
    assert key not in guarded.log.read_text()


def test_a_user_who_is_added_while_the_server_runs_gets_in(guarded: Server, key_file: Path) -> None:
    auth = ("alice", PASSWORD)
    assert guarded.client.get("/sdapi/v1/samplers", auth=auth).status_code == 401
    command = ["darkroom", "user", "add", "alice", "--api-auth-file", str(key_file)]
    subprocess.run([sys.executable, "-m", *command], input=PASSWORD + "\n", text=True, check=True, capture_output=True)
    assert guarded.client.get("/sdapi/v1/samplers", auth=auth).status_code == 200


def test_a_strict_server_refuses_what_others_pass_over(guarded: Server, key: str) -> None:
    body = SMALL | {"sampler_name": "nothing"}
    answer = guarded.client.post("/sdapi/v1/txt2img", json=body, headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_strict")


def test_the_api_page_knows_the_path_below_which_the_server_is_shown(guarded: Server) -> None:
    assert guarded.client.get("/openapi.json").json()["servers"] == [{"url": "/studio"}]
    assert guarded.client.get("/health").status_code == 200


@pytest.mark.parametrize("flags", [("--listen",), ("--host", "0.0.0.0")])
def test_other_machines_are_not_served_without_a_password(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = darkroom("serve", "--port", "0", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert "--insecure-no-auth" in done.stderr


def talk(server: Server, request: str) -> bytes:
    """What the server answers to these very bytes."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=60) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_json_without_a_content_type_is_json(server: Server) -> None:
    body = json.dumps(SMALL)
    head = f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nConnection: close"
    answer = talk(server, f"{head}\r\n\r\n{body}")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"images"' in answer


def test_a_request_that_names_no_host_is_served(server: Server) -> None:
    assert talk(server, "GET /sdapi/v1/samplers HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_page_of_another_site_cannot_make_the_server_draw(server: Server) -> None:
    body = json.dumps(SMALL)
    for header in ("Origin: https://evil.example", "Origin: null"):
        head = f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\nConnection: close"
        answer = talk(server, f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        assert answer.startswith(b"HTTP/1.1 403 ")
    answer = talk(server, "GET /sdapi/v1/samplers HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["/sdapi/v1/options", "/sdapi/v1/samplers"])
def test_a_trailing_slash_leads_to_the_route(server: Server, path: str) -> None:
    answer = server.client.get(path + "/", follow_redirects=False)
    assert answer.status_code == 307
    assert urlsplit(answer.headers["Location"]).path == path
    assert server.client.get(path + "/", follow_redirects=True).status_code == 200


def test_what_clients_ask_a_web_page_for_is_answered_in_json(server: Server) -> None:
    assert server.client.head("/").status_code < 500
    assert server.client.get("/").status_code < 500
    config = server.client.get("/config")
    assert (config.status_code, config.json()["detail"]) == (404, "Not Found")
    assert server.client.post("/login").json() == {"success": True}
    assert httpx.post(server.url + "/login", data={"username": "a", "password": "b"}).status_code == 200


def test_an_empty_body_and_unknown_methods_are_refused_in_json(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("PATCH", "/sdapi/v1/options")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (405, {"detail": "Method Not Allowed"})
    connection.close()
