"""The way to the pages, with pages of another kind in their place: building the real ones takes Gradio seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.options.store import Options
from darkroom.settings import Settings
from darkroom.ui import mount
from darkroom.ui.words import Words
from tests.unit.api.fake_engine import FakeEngine

PAGE = '<html lang="en"><head><script type="module" src="gradio.js"></script></head><body style=""></body></html>'


def stand_in(settings: Settings, words: Words, path: str) -> FastAPI:
    """Pages that tell what they are asked."""
    pages = FastAPI()

    @pages.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE

    @pages.post("/gradio_api/run/predict")
    def run(request: Request) -> dict[str, object]:
        return {"language": words.language, "known": mount.APPLICATION in request.scope}

    @pages.post("/gradio_api/upload")
    def upload() -> None:
        return None

    host = FastAPI()
    host.mount(path, pages)
    return host


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(mount, "_create", stand_in)
    monkeypatch.setattr(mount, "languages", lambda: ("en", "zh"))
    monkeypatch.setattr(mount, "read_words", lambda language: Words(language=language, table={"</script>": "x"}))
    settings = Settings(data_dir=tmp_path, history=False, subpath="")
    app = create_app(settings, FakeEngine(), Options(settings.options_file))
    mount.mount(app, settings, lambda: True)
    with TestClient(app, follow_redirects=False) as client:
        yield client


def test_whoever_knows_the_server_only_is_led_to_the_pages(client: TestClient) -> None:
    answer = client.get("/?prompt=a%20cat&lang=zh")
    assert (answer.status_code, answer.headers["location"]) == (307, "/ui/?prompt=a%20cat&lang=zh")


def test_the_page_has_our_head_before_its_own_scripts(client: TestClient) -> None:
    page = client.get("/ui/").text
    places = [page.index(mark) for mark in ("/darkroom.css", "/theme.js", "/darkroom.js", "gradio.js", "classList")]
    assert places == sorted(places)


def test_every_file_that_the_page_names_is_served_for_good(client: TestClient) -> None:
    page = client.get("/ui/").text
    names = [part.split('"')[0] for part in page.split('="/ui-assets/')[1:]]
    assert len(names) > 4
    for name in names:
        answer = client.get(f"/ui-assets/{name}")
        assert answer.status_code == 200, name
        assert "immutable" in answer.headers["cache-control"]


def test_words_cannot_end_the_script_that_holds_them(client: TestClient) -> None:
    assert "</script>x" not in client.get("/ui/zh/").text.replace("\\u003c/script>", "")
    assert '"\\u003c/script>"' in client.get("/ui/zh/").text


@pytest.mark.parametrize(
    ("query", "headers", "leads_to"),
    [
        ("", {"accept-language": "zh-CN,zh"}, "/ui/zh/"),
        ("?lang=zh&prompt=a%20%26b", {}, "/ui/zh/?prompt=a+%26b"),
        ("?lang=en", {"accept-language": "zh"}, "/ui/"),
        ("", {"cookie": "darkroom-language=zh"}, "/ui/zh/"),
    ],
)
def test_a_reader_is_led_to_their_language(
    client: TestClient, query: str, headers: dict[str, str], leads_to: str
) -> None:
    answer = client.get(f"/ui/{query}", headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (307, leads_to)


def test_a_language_that_was_asked_for_is_remembered(client: TestClient) -> None:
    client.get("/ui/?lang=zh")
    assert client.get("/ui/").headers["location"] == "/ui/zh/"


def test_events_reach_the_pages_of_their_language_with_the_application(client: TestClient) -> None:
    for path, language in (("/ui", "en"), ("/ui/zh", "zh")):
        answer = client.post(f"{path}/gradio_api/run/predict")
        assert answer.json() == {"language": language, "known": True}


@pytest.mark.parametrize("path", ["gradio_api/upload", "gradio_api/file=/etc/passwd", "monitoring", "login", "docs"])
def test_routes_that_no_page_needs_are_shut(client: TestClient, path: str) -> None:
    assert client.post(f"/ui/{path}").status_code == 404
    assert client.get(f"/ui/{path}").status_code == 404


def test_without_the_pages_their_addresses_lead_nowhere(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, history=False, ui=False)
    plain = TestClient(create_app(settings, FakeEngine(), Options(settings.options_file)))
    assert [plain.get(path).status_code for path in ("/", "/ui/", "/ui-assets/x/darkroom.js")] == [404] * 3
