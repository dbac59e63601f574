"""The documentation says what the code does: every flag, route, error and header, and no link leads nowhere."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from darkroom.api.app import create_app
from darkroom.engine.client import Engine
from darkroom.errors import DarkroomError
from darkroom.options.store import Options
from darkroom.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")


def kinds(base: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


KINDS = sorted(set(kinds(DarkroomError)), key=lambda kind: kind.__name__)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_settings_page_is_what_the_settings_are() -> None:
    found = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert found is not None
    assert found.loader is not None
    generator = importlib.util.module_from_spec(found)
    found.loader.exec_module(generator)
    written = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert written == generator.page(), "docs/settings.md is out of date: make settings-doc"


def test_every_route_is_documented() -> None:
    app = create_app(Settings(), cast("Engine", object()), Options())
    undocumented = [path for path in app.openapi()["paths"] if f"{path}`" not in API]
    assert undocumented == []


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_every_error_code_is_documented(kind: type[DarkroomError]) -> None:
    assert re.search(rf"^\| {kind.http_status} \| `{kind.code}` \|", API, re.MULTILINE), (kind.http_status, kind.code)


def test_every_header_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "darkroom/api").glob("*.py"))
    named = set(re.findall(r'"(X-[A-Za-z-]+)"', sources))
    assert [header for header in sorted(named) if f"`{header}`" not in API] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", re.sub(r"(?s)<!--.*?-->", "", readme)))
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_lock_pins_everything_exactly_and_no_build_of_anything() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
