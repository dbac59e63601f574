"""The database in trouble: each kind is said to be what it is, and what was promised is still there afterwards."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darkroom.history import database as rooms
from darkroom.history.database import Database, HistoryUnavailable, sqlite_url
from darkroom.history.gallery import Gallery, Search
from darkroom.history.ledger import Answered, Asked, Hook, Kept, Ledger, Record, Wanted, new_id
from darkroom.history.rows import RowDamaged
from darkroom.history.webhooks import Outbox

Open = Callable[[Path], Ledger]
ASKED = Asked(path="/sdapi/v1/txt2img", body=b"{}")


def job(**changes: object) -> Record:
    fields = {"owner": "ann", "state": "queued", "durable": True, "submitted_at": 1.0, **changes}
    return Record(id=new_id(), kind="txt2img", **fields)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def open_at() -> Iterator[Open]:
    """Opens a database; closed in the end."""
    opened: list[Database] = []

    def open_one(path: Path) -> Ledger:
        opened.append(Database(sqlite_url(path)))
        return Ledger(opened[-1])

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def ledger(file: Path, open_at: Open) -> Ledger:
    return open_at(file)


def listed(ledger: Ledger) -> set[str]:
    return {record.id for record in ledger.list_jobs(Wanted()).rows}


def test_a_file_that_was_removed_is_written_anew_with_all_that_was_in_it(
    ledger: Ledger, file: Path, open_at: Open
) -> None:
    known = [ledger.accept(job(), ASKED)[0].id for _ in range(3)]
    for path in (file, *file.parent.glob("history.db-*")):
        path.unlink()
    later = ledger.accept(job(), ASKED)[0].id
    assert listed(ledger) == {*known, later}
    assert listed(open_at(file)) == {*known, later}


def test_a_file_that_lost_its_name_alone_does_not_mix_with_its_old_log(ledger: Ledger, file: Path) -> None:
    known = ledger.accept(job(), ASKED)[0].id
    file.unlink()
    assert listed(ledger) == {known}
    with sqlite3.connect(file) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_was_replaced_counts(ledger: Ledger, file: Path, tmp_path: Path, open_at: Open) -> None:
    other = open_at(tmp_path / "other.db")
    restored = other.accept(job(), ASKED)[0].id
    other._database.close()
    ledger.accept(job(), ASKED)
    (tmp_path / "other.db").replace(file)
    assert listed(ledger) == {restored}


def test_a_folder_that_was_removed_comes_back(tmp_path: Path, open_at: Open) -> None:
    folder = tmp_path / "data"
    ledger = open_at(folder / "history.db")
    known = ledger.accept(job(), ASKED)[0].id
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert listed(ledger) == {known}


def test_a_file_that_is_no_database_is_named(file: Path) -> None:
    file.write_bytes(b"\x8a" * 9000)
    with pytest.raises(HistoryUnavailable, match=r"history.db cannot be used: file is not a database"):
        Database(sqlite_url(file))


def test_a_database_of_a_newer_version_is_named(file: Path) -> None:
    Database(sqlite_url(file)).close()
    with sqlite3.connect(file) as opened:
        opened.execute("UPDATE alembic_version SET version_num = 'later'")
    opened.close()
    with pytest.raises(HistoryUnavailable, match="later"):
        Database(sqlite_url(file))


def test_a_page_that_was_overwritten_is_told_and_other_pages_still_serve(ledger: Ledger, file: Path) -> None:
    ids = [ledger.accept(job(), Asked(path="/", body=b"x" * 3000)) for _ in range(40)]
    ledger._database._engine.dispose()
    with sqlite3.connect(file) as opened:
        [(root,)] = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'requests'").fetchall()
        [(size,)] = opened.execute("PRAGMA page_size").fetchall()
    opened.close()
    with file.open("r+b") as raw:
        raw.seek((root - 1) * size)
        raw.write(b"\xa5" * size)
    with pytest.raises(HistoryUnavailable, match="malformed"):
        ledger.request_of(ids[0][0].id)
    assert len(listed(ledger)) == 40


def test_a_damaged_file_that_was_put_away_makes_room_for_a_new_one(ledger: Ledger, file: Path) -> None:
    for _ in range(40):
        ledger.accept(job(), Asked(path="/", body=b"x" * 3000))
    with sqlite3.connect(file) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(root,)] = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'requests'").fetchall()
        [(size,)] = opened.execute("PRAGMA page_size").fetchall()
    opened.close()
    with file.open("r+b") as raw:
        raw.seek((root - 1) * size)
        raw.write(b"\xa5" * size)
    file.rename(file.with_name("damaged.db"))
    later = ledger.accept(job(), ASKED)[0].id
    assert listed(ledger) == {later}


NO_TEXT = "CAST(x'736563726574ff' AS TEXT)"
"""`secret` and a byte that is none of UTF-8."""


def damage(file: Path, statement: str, *values: str) -> None:
    with sqlite3.connect(file) as opened:
        assert opened.execute(statement, values).rowcount > 0
    opened.close()


def test_an_error_repeats_nothing_of_what_is_kept(ledger: Ledger, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = ledger.accept(job(), ASKED)[0].id
    damage(file, f"UPDATE jobs SET model = {NO_TEXT}")
    with pytest.raises(RowDamaged, match=known) as caught:
        ledger.find(known)
    assert listed(ledger) == set()
    assert "secret" not in f"{caught.value} {caplog.text}"


@pytest.mark.parametrize(
    "change", [f"model = {NO_TEXT}", f"version = {NO_TEXT}", "state = 'donf'", "attempts = NULL", f"owner = {NO_TEXT}"]
)
def test_a_job_that_cannot_be_read_is_in_nobody_s_way(ledger: Ledger, file: Path, change: str) -> None:
    damaged, *whole = (ledger.accept(job(submitted_at=float(when)), ASKED)[0].id for when in range(5))
    with sqlite3.connect(file) as opened:
        opened.execute("PRAGMA writable_schema = ON")
        opened.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'jobs'")
    opened.close()
    ledger._database._engine.dispose()
    damage(file, f"UPDATE jobs SET {change} WHERE id = ?", damaged)
    first = ledger.list_jobs(Wanted(limit=4))
    assert {one.id for one in first.rows} == set(whole)
    assert {one.id for one in ledger.list_jobs(Wanted(limit=4, before=first.next)).rows} == set()
    taken = [ledger.claim() for _ in range(5)]
    assert [one[0].id for one in taken if one] == whole
    assert taken[4] is None


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("jobs", f"model = {NO_TEXT}"),
        ("jobs", "state = 'donf'"),
        ("requests", "options = '{broken'"),
        ("answers", "headers = '[broken'"),
    ],
)
def test_what_is_damaged_of_a_job_is_told_of_that_job_alone(
    ledger: Ledger, file: Path, table: str, change: str
) -> None:
    damaged, whole = (ledger.accept(job(submitted_at=float(when)), ASKED)[0].id for when in range(2))
    for job_id in (damaged, whole):
        ledger.claim()
        ledger.end(job_id, "done", answered=Answered(status=200, body=b"{}"))
    damage(file, f"UPDATE {table} SET {change} WHERE {'id' if table == 'jobs' else 'job_id'} = ?", damaged)
    read: Callable[[str], object] = {
        "jobs": ledger.find, "requests": ledger.request_of, "answers": ledger.answer_of
    }[table]  # fmt: skip
    with pytest.raises(RowDamaged, match=damaged) as caught:
        read(damaged)
    assert (caught.value.http_status, caught.value.code) == (410, "damaged")
    assert read(whole) is not None


def test_a_key_whose_job_is_damaged_is_told_of_that_job_alone(ledger: Ledger, file: Path) -> None:
    known = ledger.accept(job(idempotency_key="once"), ASKED)[0].id
    damage(file, f"UPDATE jobs SET model = {NO_TEXT}")
    for ask in (lambda: ledger.find_by_key("ann", "once"), lambda: ledger.accept(job(idempotency_key="once"), ASKED)):
        with pytest.raises(RowDamaged, match=known):
            ask()
    assert ledger.find_by_key("ann", "twice") is None


def test_a_whole_database_that_cannot_be_read_is_no_affair_of_one_job(ledger: Ledger, file: Path) -> None:
    known = ledger.accept(job(), ASKED)[0].id
    with sqlite3.connect(file) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    opened.close()
    ledger._database._engine.dispose()
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xa5" * (file.stat().st_size - 4096))
    with pytest.raises(HistoryUnavailable) as caught:
        ledger.find(known)
    assert caught.value.http_status == 503


def test_a_picture_that_cannot_be_read_is_told_by_its_id(ledger: Ledger, file: Path) -> None:
    known = ledger.accept(job(), ASKED)[0]
    ledger.claim()
    made = Kept(
        id=new_id(), job_id=known.id, place=0, owner="ann", created_at=1.0, key="0.png", media_type="image/png",
        size=10, sha256="",
    )  # fmt: skip
    ledger.end(known.id, "done", pictures=[made])
    damage(file, "UPDATE pictures SET width = 'wide' WHERE id = ?", made.id)
    with pytest.raises(RowDamaged, match=made.id):
        Gallery(ledger._database).find(made.id)


def test_a_picture_that_cannot_be_read_is_left_out(ledger: Ledger, file: Path) -> None:
    known = ledger.accept(job(), ASKED)[0]
    ledger.claim()
    made = [
        Kept(id=new_id(), job_id=known.id, place=place, owner="ann", created_at=float(place), key=f"{place}.png",
             media_type="image/png", size=10, sha256="", tags=(f"tag{place}",))
        for place in range(3)
    ]  # fmt: skip
    ledger.end(known.id, "done", pictures=made)
    gallery = Gallery(ledger._database)
    damage(file, f"UPDATE pictures SET infotext = {NO_TEXT} WHERE id = ?", made[1].id)
    assert gallery.search(Search()).rows == [made[2], made[0]]
    assert gallery.of_job(known.id) == [made[0], made[2]]
    damage(file, f"UPDATE tags SET name = {NO_TEXT} WHERE picture_id = ?", made[0].id)
    assert [one.id for one in gallery.search(Search()).rows] == [made[2].id, made[0].id]
    assert gallery.drop(older_than=1.5) == ["0.png", "1.png"]
    assert [one.id for one in gallery.search(Search()).rows] == [made[2].id]


def test_a_call_that_cannot_be_read_is_in_nobody_s_way(ledger: Ledger, file: Path) -> None:
    hook = Hook(url="https://example.com/", events=("cancelled",))
    ids = [ledger.accept(job(), ASKED, hook)[0].id for _ in range(3)]
    for job_id in ids:
        ledger.wish(job_id, "cancel")
    damage(file, "UPDATE webhooks SET events = '[broken' WHERE job_id = ?", ids[0])
    damage(file, f"UPDATE jobs SET model = {NO_TEXT} WHERE id = ?", ids[1])
    outbox = Outbox(ledger._database)
    assert [due.job.id for due in outbox.claim(10)] == [ids[2]]
    assert outbox.of_job(ids[0]) == []


def test_a_request_that_cannot_be_read_is_not_in_the_way_of_others(ledger: Ledger, file: Path) -> None:
    damaged, whole = (ledger.accept(job(submitted_at=float(when)), ASKED)[0].id for when in (1, 2))
    ledger._database._engine.dispose()
    with sqlite3.connect(file) as opened:
        opened.execute("UPDATE requests SET options = '{broken' WHERE job_id = ?", (damaged,))
    opened.close()
    taken = ledger.claim()
    assert taken is not None
    assert taken[0].id == whole
    found = ledger.find(damaged)
    assert found is not None
    assert (found.state, found.error_code) == ("failed", "damaged")


def test_a_disk_without_room_is_told(ledger: Ledger) -> None:
    ledger.accept(job(), ASKED)
    with ledger._database.begin() as session:
        raw = session.connection().connection.driver_connection
        assert raw is not None
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(HistoryUnavailable, match="full"):
        ledger.accept(job(), Asked(path="/", body=b"x" * 100_000))
    raw.execute("PRAGMA max_page_count = 100000")
    ledger.accept(job(), Asked(path="/", body=b"x" * 100_000))
    assert len(listed(ledger)) == 2


def test_who_holds_the_lock_too_long_is_told_of_and_nothing_is_lost(
    file: Path, monkeypatch: pytest.MonkeyPatch, open_at: Open
) -> None:
    monkeypatch.setattr(rooms, "BUSY_S", 0.2)
    ledger = open_at(file)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HistoryUnavailable, match="locked"):
        ledger.accept(job(), ASKED)
    release = threading.Timer(0.05, lambda: other.execute("COMMIT"))
    release.start()
    ledger.accept(job(), ASKED)  # a short wait is none of anybody's business
    release.join()
    other.close()
    assert len(listed(ledger)) == 1
