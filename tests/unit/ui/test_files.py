import gzip
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from darkroom.ui.files import KEPT_FOR_GOOD, Files

LONG = "let a = 1;\n" * 100


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "long.js").write_text(LONG)
    (folder / "small.css").write_text("a{}")
    (folder / "picture.png").write_bytes(b"\x89PNG" * 200)
    (tmp_path / "secret.txt").write_text("secret")
    files = Files(folder, lambda route: route.lstrip("/").partition("/")[2])
    return TestClient(Starlette(routes=[Mount("/assets", files)]), headers={"accept-encoding": "gzip"})


def test_a_text_is_packed_and_kept_for_good(client: TestClient) -> None:
    answer = client.get("/assets/abc/long.js")
    assert (answer.text, answer.headers["content-encoding"]) == (LONG, "gzip")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == KEPT_FOR_GOOD
    assert int(answer.headers["content-length"]) == len(gzip.compress(LONG.encode(), 6))


def test_who_cannot_unpack_gets_it_plain(client: TestClient) -> None:
    answer = client.get("/assets/abc/long.js", headers={"accept-encoding": "identity"})
    assert (answer.text, answer.headers.get("content-encoding")) == (LONG, None)


@pytest.mark.parametrize("name", ["small.css", "picture.png"])
def test_what_is_small_or_packed_already_is_sent_as_it_is(client: TestClient, name: str) -> None:
    assert "content-encoding" not in client.get(f"/assets/abc/{name}").headers


@pytest.mark.parametrize(
    "path", ["abc/../../secret.txt", "abc/%2e%2e/secret.txt", "abc/%2fetc/passwd", "abc/none.js", "abc/"]
)
def test_nothing_outside_the_folder_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/assets/{path}").status_code == 404


def test_a_file_that_changes_is_served_anew(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/assets/abc/small.css").text == "a{}"
    (tmp_path / "files" / "small.css").write_text("b{color:red}")
    assert client.get("/assets/abc/small.css").text == "b{color:red}"


def test_files_are_only_read(client: TestClient) -> None:
    assert client.post("/assets/abc/small.css").status_code == 405
    assert client.head("/assets/abc/small.css").status_code == 200
