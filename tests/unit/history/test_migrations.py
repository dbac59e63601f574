"""The tables come to the newest form from every older one, with all that is in them, and back."""

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from darkroom.history.database import MIGRATIONS, Database
from darkroom.history.ledger import Ledger
from darkroom.history.tables import Base

JOB = """INSERT INTO jobs (id, kind, owner, state, durable, priority, fingerprint, submitted_at, attempts, version)
VALUES ('j', 'txt2img', 'ann', 'queued', :durable, 3, '', 1.0, 0, '')"""
REQUEST = """INSERT INTO requests (job_id, path, query, content_type, accept, body, options, seeds)
VALUES ('j', '/sdapi/v1/txt2img', '', '', '', :body, '{}', '{}')"""


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


def config(connection: Connection) -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    made.attributes["connection"] = connection
    return made


def test_a_database_of_the_first_version_keeps_its_jobs(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        command.upgrade(config(connection), "0001")
        connection.execute(text(JOB), {"durable": True})
        connection.execute(text(REQUEST), {"body": b"{}"})
    database = Database(url)
    taken = Ledger(database).claim()
    database.close()
    assert taken is not None
    record, asked = taken
    assert (record.id, record.owner, record.priority) == ("j", "ann", 3)
    assert (asked.body, asked.traceparent) == (b"{}", "")


def test_the_tables_are_what_the_program_says(engine: Engine, url: str) -> None:
    Database(url).close()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_way_back_leaves_the_first_version(engine: Engine) -> None:
    with engine.begin() as connection:
        command.upgrade(config(connection), "0001")
        before = shape(connection)
        command.upgrade(config(connection), "head")
        assert shape(connection) != before
        command.downgrade(config(connection), "0001")
        assert shape(connection) == before


def shape(connection: Connection) -> dict[str, list[str]]:
    found = inspect(connection)
    return {
        table: sorted([*(column["name"] for column in found.get_columns(table)),
                       *(str(index["name"]) for index in found.get_indexes(table))])
        for table in found.get_table_names()
    }  # fmt: skip
