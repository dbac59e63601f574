"""Every test of the book runs on SQLite, and on PostgreSQL where Debian's packages have it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.history.database import Database, sqlite_url
from darkroom.history.ledger import Ledger
from tests.clock import Clock
from tests.postgresql import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "history.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A database with all its tables."""
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(database: Database, clock: Clock) -> Ledger:
    return Ledger(database, clock)
