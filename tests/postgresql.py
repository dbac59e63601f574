"""A PostgreSQL server for tests, where Debian's packages have one. Its fixtures are imported by who needs them."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test run's own, without a database's name."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="darkroom-pg-", dir="/tmp") as folder:
        user = _unprivileged(folder)
        data, port = f"{folder}/data", _free_port()
        _run(user, programs[-1] / "initdb", "-D", data, "-U", "darkroom", "-A", "trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        _run(user, programs[-1] / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://darkroom@127.0.0.1:{port}"
        finally:
            _run(user, programs[-1] / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The URL of an empty database of PostgreSQL."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(f"{postgres}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgres}/{name}"


def _unprivileged(folder: str) -> str | None:
    """PostgreSQL refuses to run as root: the user of Debian's package does it then."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    shutil.chown(folder, "postgres")
    return "postgres"


def _run(user: str | None, *command: object) -> None:
    as_user = ["runuser", "-u", user, "--"] if user else []
    subprocess.run([*as_user, *map(str, command)], check=True, capture_output=True, cwd="/tmp")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
