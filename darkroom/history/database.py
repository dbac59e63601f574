"""The database: opened, brought to the newest form of its tables, and asked one short transaction at a time.

SQLite by default, others by their URL; of these PostgreSQL is tested, for several servers that share their jobs. Called
from worker threads; knows no event loop.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from threading import Condition, Lock
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from darkroom.errors import DarkroomError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_S = 15
"""Seconds to wait for another writer."""

_UNDECODABLE = "Could not decode"
_DAMAGE = ("malformed", _UNDECODABLE, "not a database")
"""SQLite's words for a file that is not as it was written."""

_UPGRADE_LOCK = 0x6461726B
"""Held by the one server that changes the tables of a shared database."""


class HistoryUnavailable(DarkroomError):
    """The database cannot be opened, read or written."""

    http_status = 503
    code = "history_unavailable"


class HistoryDamaged(HistoryUnavailable):
    """Something in the database is not what was written there."""


class Database:
    """An open database. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Open it and bring its tables up to date. Raises HistoryUnavailable."""
        try:
            self._engine = _connect(url)
            self.is_sqlite = self._engine.dialect.name == "sqlite"
            self._upgrade()
            self._file = _file_of(self._engine)
        except (SQLAlchemyError, CommandError, ImportError, OSError) as error:
            raise HistoryUnavailable(f"the database {_shown(url)} cannot be used: {_reason(error)}") from error
        self._one, self._quiet, self._at_work, self._closed = Lock(), Condition(), 0, False
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction: kept when the block ends, undone when it raises. Raises HistoryUnavailable."""
        try:
            with self._counted(), self._turn(), self._sessions.begin() as session:
                yield session
        except IntegrityError:
            raise
        except (JSONDecodeError, UnicodeDecodeError) as error:
            raise HistoryDamaged(f"the database of jobs is damaged: {_reason(error)}") from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            kind = HistoryDamaged if is_damage(error) else HistoryUnavailable
            raise kind(f"the database of jobs: {_reason(error)}") from error

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._quiet:
            if self._closed:
                raise HistoryUnavailable("the database of jobs: closed, because the server stops")
            self._at_work += 1
        try:
            yield
        finally:
            with self._quiet:
                self._at_work -= 1
                self._quiet.notify_all()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """On SQLite one transaction at a time, in a file that is where it should be."""
        if self._file is None:
            yield
            return
        if not self._one.acquire(timeout=BUSY_S):
            raise HistoryUnavailable("the database of jobs: busy")
        try:
            self._keep_file(self._file)
            yield
        finally:
            self._one.release()

    def _keep_file(self, file: "_WatchedFile") -> None:
        """Put a file back that was removed: it is there as long as it is open. Use the one that took its place."""
        if file.is_here:
            return
        if file.path.exists():
            log.error("%s was replaced: the jobs and pictures in the new file count from now on", file.path)
            self._engine.dispose()
            file.remove_logs()
        else:
            log.error("%s was removed: it is written anew", file.path)
            self._write_anew(file)
        self._upgrade()
        file.note()

    def _write_anew(self, file: "_WatchedFile") -> None:
        path = file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        if self._engine.pool.checkedin():  # type: ignore[attr-defined]  # a QueuePool, as for every file
            self._copy_to(part)
        self._engine.dispose()
        file.remove_logs()
        if part.exists():
            part.replace(path)

    def _copy_to(self, part: Path) -> None:
        pooled = self._engine.raw_connection()
        try:
            cursor = pooled.cursor()
            cursor.execute("VACUUM INTO ?", (str(part),))
            cursor.close()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            log.error("what was in it is damaged, and is not taken over: %s", error)
            part.unlink(missing_ok=True)
        finally:
            pooled.close()

    def close(self) -> None:
        """Close all connections, after the transactions that still go on."""
        with self._quiet:
            self._closed = True
            self._quiet.wait_for(lambda: not self._at_work, timeout=BUSY_S)
        self._engine.dispose()

    def _upgrade(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


class _WatchedFile:
    """Tells whether a file and its log are still those that were opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log, self._index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
        self.note()

    def note(self) -> None:
        """Those that are here are the ones."""
        self._opened, self._opened_log = _identity(self.path), _identity(self._log)

    @property
    def is_here(self) -> bool:
        """Whether the file is."""
        return _identity(self.path) == self._opened

    def remove_logs(self) -> None:
        """What was written to the old file must not be found in a new one."""
        if _identity(self._log) == self._opened_log:
            self._log.unlink(missing_ok=True)
            self._index.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _file_of(engine: Engine) -> _WatchedFile | None:
    name = engine.url.database
    return _WatchedFile(Path(name)) if engine.dialect.name == "sqlite" and name and name != ":memory:" else None


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


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return text.split(" with text ")[0]  # SQLite repeats what it found, which is not for everybody's eyes


def is_damage(error: Exception) -> bool:
    """Whether an error of the database says that something in it is not what was written there."""
    return any(sign in _reason(error) for sign in _DAMAGE)


def is_undecodable(error: Exception) -> bool:
    """Whether an error of the database is about a text in it that is none, and not about more."""
    return _UNDECODABLE in _reason(error)


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "URL"
