"""The database: opened, brought to the newest form of its tables, and asked one short transaction at a time.

SQLite by default, others by their URL; of these PostgreSQL is tested, for several servers that share their jobs. Called
from worker threads; knows no event loop.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from darkroom.errors import DarkroomError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_S = 15
"""Seconds to wait for another writer."""

_UPGRADE_LOCK = 0x6461726B
"""Held by the one server that changes the tables of a shared database."""


class HistoryUnavailable(DarkroomError):
    """The database cannot be opened, read or written."""

    http_status = 503
    code = "history_unavailable"


class Database:
    """An open database. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Open it and bring its tables up to date. Raises HistoryUnavailable."""
        try:
            self._engine = _connect(url)
            self.is_sqlite = self._engine.dialect.name == "sqlite"
            self._upgrade()
        except (SQLAlchemyError, ArgumentError, ImportError, OSError) as error:
            raise HistoryUnavailable(f"the database {_shown(url)} cannot be used: {_reason(error)}") from error
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction: kept when the block ends, undone when it raises. Raises HistoryUnavailable."""
        try:
            with self._sessions.begin() as session:
                yield session
        except DBAPIError as error:
            if isinstance(error.orig, Exception) and _is_conflict(error):
                raise
            raise HistoryUnavailable(f"the database of jobs: {_reason(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _upgrade(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path.absolute()}"


def _connect(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(parsed, pool_pre_ping=True, pool_size=8)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver's guess
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    """Take the write lock at once: a reader that becomes a writer would fail where it cannot wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_conflict(error: DBAPIError) -> bool:
    return type(error).__name__ == "IntegrityError"


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "URL"
