"""What a user or a key may do, route by route."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from darkroom.allowances import SCOPES, Allowance, Scope
from darkroom.api.auth import OPEN, OPEN_BELOW
from darkroom.api.jobs.intake import KINDS
from darkroom.api.scopes import ROUTES, find_scope, scope_of
from darkroom.credentials import Credentials, write
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine
from tests.unit.api.test_auth import cheap

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}


def templates(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path of every route there is, those inside of others included."""
    for route in routes:
        inner: Any = getattr(route, "original_router", None) or route
        if isinstance(inner, APIRoute) or not getattr(inner, "routes", None):
            path = getattr(inner, "path", "")
            yield from ((method, path) for method in getattr(inner, "methods", None) or {"GET"})
        else:
            yield from templates(inner.routes)


def is_open(path: str) -> bool:
    return path in OPEN or f"{path}/".startswith(OPEN_BELOW) or path.startswith("/docs")


def test_the_table_names_every_route_and_no_other(serve: Serve) -> None:
    client = serve(api_server_stop=True)
    there = {
        (method, re.sub(r"{(\w+):path}", r"{\1}", path))
        for method, path in templates(client.app.routes)  # type: ignore[attr-defined]
        if path and method != "HEAD" and not is_open(path)
    }
    named = {(method, re.sub(r"{(\w+):path}", r"{\1}", path)) for method, path in ROUTES}
    assert sorted(there - named) == []
    beside = {entry for entry in named - there if not entry[1].startswith(("/ui", "/docs"))} - {("GET", "/")}
    assert sorted(beside) == []


def test_whatever_makes_the_device_work_needs_more_than_reading() -> None:
    assert {scope_of("POST", path) for path in KINDS} == {"generate", "admin"}
    assert scope_of("POST", "/models/merge") == "admin"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/images/abc/file", "read"),
        ("HEAD", "/images/abc", "read"),
        ("DELETE", "/images/abc", "generate"),
        ("PUT", "/images/abc/tags", "generate"),
        ("GET", "/v1/models/some/model", "read"),
        ("POST", "/ui/gradio_api/queue/join", "read"),
        ("GET", "/an/extension", "read"),
        ("POST", "/an/extension", "admin"),
        ("POST", "/sdapi/v1/samplers", "admin"),
        ("POST", "/images/a/b/c", "admin"),
        ("OPTIONS", "/sdapi/v1/txt2img", "read"),
    ],
)
def test_the_scope_of_a_request(method: str, path: str, scope: Scope) -> None:
    assert scope_of(method, path) == scope


def test_a_path_is_matched_as_a_whole() -> None:
    assert find_scope("GET", "/jobsx") is None
    assert find_scope("GET", "/jobs/x/events/y") is None
    assert find_scope("DELETE", "/jobs/x\n") == "generate"


class Door:
    """A server and keys of several scopes."""

    def __init__(self, serve: Serve, folder: Path, **settings: Any) -> None:
        self.keys: dict[str, str] = {}
        credentials = Credentials()
        chosen: list[tuple[Scope, ...]] = [*((scope,) for scope in SCOPES), ("generate", "read"), SCOPES]
        for scopes in chosen:
            name = "+".join(scopes)
            credentials, self.keys[name] = credentials.with_key(name, Allowance(scopes=frozenset(scopes)))
        credentials, self.keys["old"] = credentials.with_key("old")
        write(folder / "credentials", credentials)
        self.client = serve(api_auth_file=folder / "credentials", **settings)

    def ask(self, key: str, method: str, path: str, **sent: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[key]}", **sent.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **sent)


@pytest.fixture
def door(serve: Serve, tmp_path: Path) -> Door:
    return Door(serve, tmp_path)


def test_a_key_opens_what_its_scopes_name_and_is_told_what_it_lacks(door: Door) -> None:
    paths = {
        "read": ("GET", "/sdapi/v1/samplers"),
        "generate": ("POST", "/sdapi/v1/txt2img"),
        "admin": ("POST", "/sdapi/v1/unload-checkpoint"),
    }
    for key in (*SCOPES, "generate+read", "generate+read+admin", "old"):
        for scope, (method, path) in paths.items():
            answer = door.ask(key, method, path, json=SMALL)
            if scope in key.split("+") or key == "old":
                assert answer.status_code == 200, (key, path)
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
                assert repr(scope) in answer.json()["detail"]


def test_a_refusal_of_openai_s_routes_has_their_shape(door: Door) -> None:
    answer = door.ask("read", "POST", "/v1/images/generations", json={"prompt": "x"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "missing_scope"


def test_an_open_route_needs_no_scope(door: Door) -> None:
    assert door.ask("admin", "GET", "/health").status_code == 200


def job_of(door: Door, key: str) -> str:
    answer = door.ask(key, "POST", "/sdapi/v1/txt2img", json=SMALL, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_an_administrator_sees_and_stops_everybody_s_work_and_nobody_else_does(door: Door, engine: FakeEngine) -> None:
    engine.held = True
    job_id = job_of(door, "generate+read")
    for other, status in (("old", 404), ("read", 404), ("generate+read+admin", 200)):
        assert door.ask(other, "GET", f"/jobs/{job_id}").status_code == status, other
    assert door.ask("old", "GET", "/jobs").json()["jobs"] == []
    listed = door.ask("generate+read+admin", "GET", "/jobs").json()["jobs"]
    assert [job["owner"] for job in listed] == ["generate+read"]
    assert door.ask("generate+read+admin", "GET", "/jobs?owner=old").json()["jobs"] == []
    assert door.ask("old", "DELETE", f"/jobs/{job_id}").status_code == 404
    assert door.ask("generate+read+admin", "DELETE", f"/jobs/{job_id}").status_code == 200
    engine.held = False


def test_the_settings_name_administrators_too(serve: Serve) -> None:
    client = serve(api_auth="ann:secret,ben:secret", admins="ann, cleo")
    sent = client.post(
        "/sdapi/v1/txt2img", json=SMALL, headers={"Prefer": "respond-async"}, auth=("ben", "secret")
    ).json()
    assert client.get(f"/jobs/{sent['id']}", auth=("ann", "secret")).status_code == 200
    mine = client.post(
        "/sdapi/v1/txt2img", json=SMALL, headers={"Prefer": "respond-async"}, auth=("ann", "secret")
    ).json()
    assert mine["owner"] == "ann"
    assert client.get(f"/jobs/{mine['id']}", auth=("ben", "secret")).status_code == 404


def test_a_merge_is_not_repeated_with_fewer_rights(serve: Serve, tmp_path: Path) -> None:
    door = Door(serve, tmp_path)
    files = {"a": "small-a", "b": "bar"}
    sent = door.ask("old", "POST", "/models/merge", json=files, headers={"Prefer": "respond-async"})
    assert sent.status_code == 202, sent.text
    job_id = sent.json()["id"]
    credentials, key = Credentials().with_key("old", Allowance(scopes=frozenset({"generate", "read"})))
    write(tmp_path / "credentials", credentials)
    answer = door.client.post(f"/jobs/{job_id}/rerun", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


def test_a_login_has_the_user_s_rights(serve: Serve, tmp_path: Path) -> None:
    write(
        tmp_path / "credentials",
        Credentials(users={"ann": cheap("wonderland")}, user_allowances={"ann": Allowance(scopes=frozenset({"read"}))}),
    )
    client: TestClient = serve(api_auth_file=tmp_path / "credentials")
    client.post("/login", data={"username": "ann", "password": "wonderland"})
    own = {"Sec-Fetch-Site": "same-origin"}
    assert client.get("/jobs").status_code == 200
    assert client.post("/sdapi/v1/txt2img", json=SMALL, headers=own).status_code == 403
    write(tmp_path / "credentials", Credentials(users={"ann": cheap("wonderland")}))
    assert client.post("/sdapi/v1/txt2img", json=SMALL, headers=own).status_code == 200
