"""The book of jobs: what was promised is done once, by one server, and nobody keeps another one waiting."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darkroom.errors import BadRequest
from darkroom.history.database import Database
from darkroom.history.gallery import Gallery, Search
from darkroom.history.ledger import (
    LEASE_S,
    MAX_ATTEMPTS,
    SUSPECT_AFTER,
    Answered,
    Asked,
    Kept,
    Ledger,
    Record,
    State,
    Wanted,
    new_id,
)
from darkroom.history.rows import Page
from tests.clock import Clock

ASKED = Asked(path="/sdapi/v1/txt2img", body=b'{"prompt": "\xc3\xa4"}', options={"n_rows": 2}, seeds={"seed": 2**53})


_moments = itertools.count()


def job(owner: str = "ann", **changes: object) -> Record:
    made = Record(
        id=new_id(),
        kind="txt2img",
        owner=owner,
        state="queued",
        durable=True,
        submitted_at=999 + next(_moments) / 10_000,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def picture(record: Record, place: int = 0) -> Kept:
    return Kept(
        id=new_id(), job_id=record.id, place=place, owner=record.owner, created_at=5.0, key=f"{record.id}-{place}.png",
        media_type="image/png", size=10, sha256="0" * 64, seed=2**40, infotext="a cat", tags=("b", "a"),
    )  # fmt: skip


def accepted(ledger: Ledger, *records: Record) -> list[Record]:
    return [ledger.accept(record, ASKED)[0] for record in records]


def test_a_job_is_taken_with_what_it_was_asked(ledger: Ledger) -> None:
    [record] = accepted(ledger, job())
    taken = ledger.claim()
    assert taken is not None
    assert taken[1] == ASKED
    assert (taken[0].id, taken[0].state, taken[0].attempts) == (record.id, "running", 1)
    assert ledger.claim() is None


def test_a_job_ends_once(ledger: Ledger, database: Database) -> None:
    [record] = accepted(ledger, job())
    ledger.claim()
    answer = Answered(status=200, body=b"{}", headers={"content-type": "application/json"})
    kept = picture(record)
    assert ledger.end(record.id, "done", answered=answer, pictures=[kept], model="m")
    assert not ledger.end(record.id, "failed", error=("x", "y"))
    found = ledger.find(record.id)
    assert found is not None
    assert (found.state, found.http_status, found.model, found.error) == ("done", 200, "m", None)
    assert ledger.answer_of(record.id) == answer
    assert Gallery(database).of_job(record.id) == [replace(kept, tags=("a", "b"))]


def test_the_same_key_of_the_same_owner_is_the_same_job(ledger: Ledger) -> None:
    first, new = ledger.accept(job(idempotency_key="k"), ASKED)
    again, newer = ledger.accept(job(idempotency_key="k"), ASKED)
    other, others = ledger.accept(job(owner="ben", idempotency_key="k"), ASKED)
    assert (new, newer, others) == (True, False, True)
    assert again.id == first.id != other.id
    assert all(ledger.accept(job(), ASKED)[1] for _ in range(2))  # without a key every one is new


def test_many_servers_never_take_the_same_job(database: Database) -> None:
    ledgers = [Ledger(database) for _ in range(4)]
    records = accepted(ledgers[0], *(job(owner=f"u{i % 3}") for i in range(24)))
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda number: ledgers[number % 4].claim(), range(32)))
    ids = [one[0].id for one in taken if one]
    assert len(ids) == len(set(ids))
    rest = list(iter(ledgers[0].claim, None))
    assert sorted([*ids, *(one[0].id for one in rest)]) == sorted(record.id for record in records)


def test_whoever_brings_one_job_does_not_wait_behind_whoever_brings_many(ledger: Ledger, clock: Clock) -> None:
    accepted(ledger, *(job(owner="flood") for _ in range(50)))
    ledger.claim()
    accepted(ledger, job(owner="ben"))
    clock.now += 1
    taken = ledger.claim()
    assert taken is not None
    assert taken[0].owner == "ben"


def test_a_higher_priority_goes_first_and_equal_ones_in_order(ledger: Ledger) -> None:
    records = accepted(ledger, job(), job(), job(priority=1), job())
    order = [one[0].id for one in iter(ledger.claim, None)]
    assert order == [records[place].id for place in (2, 0, 1, 3)]


def test_jobs_of_a_lost_server_are_taken_over_when_its_lease_ends(database: Database, clock: Clock) -> None:
    lost, other = Ledger(database, clock), Ledger(database, clock)
    [record] = accepted(lost, job())
    lost.claim()
    clock.now += LEASE_S - 1
    lost.renew([record.id])
    clock.now += LEASE_S - 1
    assert other.take_back() == 0
    clock.now += 2
    assert other.take_back() == 1
    again = other.claim()
    assert again is not None
    assert again[0].attempts == 2
    assert not lost.end(record.id, "done")
    assert other.end(record.id, "done")


def test_a_server_that_is_alone_takes_back_at_once_and_leaves_its_own(database: Database) -> None:
    before, now = Ledger(database), Ledger(database)
    accepted(before, job(), job())
    before.claim()
    mine = now.claim()
    assert mine is not None
    assert now.take_back(everything=True) == 1
    assert now.end(mine[0].id, "done")


def test_a_job_that_kills_its_servers_is_given_up(database: Database) -> None:
    [record] = accepted(Ledger(database), job())
    for _ in range(MAX_ATTEMPTS):
        server = Ledger(database)
        server.take_back(everything=True)
        assert server.claim() is not None
    server = Ledger(database)
    assert server.take_back(everything=True) == 1
    found = server.find(record.id)
    assert found is not None
    assert (found.state, found.error_code) == ("failed", "server_lost")
    assert server.claim() is None


def test_a_job_that_may_take_servers_down_is_begun_where_there_is_no_other(database: Database) -> None:
    suspect, other = accepted(Ledger(database), job(), job())
    for _ in range(SUSPECT_AFTER):
        server = Ledger(database)
        server.take_back(everything=True)
        taken = server.claim(alone=False)
        assert taken is not None
        assert taken[0].id == suspect.id
    server = Ledger(database)
    server.take_back(everything=True)
    assert server.claim(alone=False) is None
    order = [one[0].id for one in iter(server.claim, None)]
    assert order == [suspect.id, other.id]


def test_a_server_that_stops_hands_its_jobs_back_uncounted(database: Database) -> None:
    server, next_one = Ledger(database), Ledger(database)
    accepted(server, job())
    server.claim()
    assert server.hand_back() == 1
    again = next_one.claim()
    assert again is not None
    assert again[0].attempts == 1


def test_a_job_that_waits_is_cancelled_at_once_and_one_at_work_is_asked_to_end(ledger: Ledger) -> None:
    first, second = accepted(ledger, job(), job())
    ledger.claim()
    waiting, running = ledger.wish(second.id, "cancel"), ledger.wish(first.id, "interrupt")
    assert waiting is not None
    assert waiting.state == "cancelled"
    assert running is not None
    assert (running.state, running.wish) == ("running", "interrupt")
    assert ledger.renew([first.id, second.id]) == {first.id: "interrupt"}
    ledger.wish(first.id, "cancel")
    ledger.wish(first.id, "interrupt")
    assert ledger.renew([first.id]) == {first.id: "cancel"}
    assert ledger.wish("absent", "cancel") is None


def listed(ledger: Ledger, **wanted: Any) -> list[str]:
    return [record.id for record in ledger.list_jobs(Wanted(**wanted)).rows]


def test_pages_hold_everything_once_whatever_is_removed_between_them(ledger: Ledger, database: Database) -> None:
    """Several jobs of the same moment, some of which end and are removed; the row before the next page among them."""
    records = accepted(ledger, *(job(submitted_at=float(number // 3)) for number in range(8)))
    while taken := ledger.claim():
        ledger.end(taken[0].id, "done", pictures=[replace(picture(taken[0]), created_at=taken[0].submitted_at)])
    newest = [one.id for one in sorted(records, key=lambda one: (one.submitted_at, one.id), reverse=True)]
    assert pages(lambda before: ledger.list_jobs(Wanted(before=before, limit=4))) == [newest[:4], newest[4:]]
    found = pages(lambda before: Gallery(database).search(Search(before=before, limit=3)))
    assert [len(one) for one in found] == [3, 3, 2]
    first = ledger.list_jobs(Wanted(limit=3))
    ledger.remove(first.rows[-1].id)
    assert listed(ledger, before=first.next) == newest[3:]
    with pytest.raises(BadRequest, match="before"):
        ledger.list_jobs(Wanted(before=first.rows[-1].id))


def pages(read: Callable[[str | None], Page[Any]]) -> list[list[str]]:
    found = [read(None)]
    while found[-1].next is not None:
        found.append(read(found[-1].next))
    return [[row.id for row in one.rows] for one in found]


def test_lists_are_narrowed_and_paged(ledger: Ledger) -> None:
    records = accepted(ledger, *(job(owner=owner) for owner in ("ann", "ben", "ann", "ann")))
    ledger.claim()
    newest = [record.id for record in reversed(records)]
    assert listed(ledger) == newest
    assert listed(ledger, limit=2) == newest[:2]
    assert listed(ledger, before=newest[1]) == newest[2:]
    assert listed(ledger, owner="ben") == [records[1].id]
    assert listed(ledger, states=("running",)) == [records[0].id]
    assert listed(ledger, kind="extras") == []
    assert ledger.waiting_before(records[3]) == 2
    assert (ledger.count_open(), ledger.count_open("ben")) == (4, 1)


def test_an_ended_job_is_removed_with_its_pictures(ledger: Ledger, database: Database) -> None:
    [record] = accepted(ledger, job())
    assert ledger.remove(record.id) is None
    ledger.claim()
    ledger.end(record.id, "done", answered=Answered(status=200, body=b""), pictures=[picture(record)])
    assert ledger.remove(record.id) == [f"{record.id}-0.png"]
    assert ledger.find(record.id) is None
    assert ledger.answer_of(record.id) is None
    assert Gallery(database).of_job(record.id) == []


ACTIONS = st.lists(st.sampled_from(["accept", "claim", "done", "lose", "cancel", "stop"]), max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_whatever_happens_every_job_ends_once_and_none_is_lost(database: Database, actions: list[str]) -> None:
    server = Ledger(database)
    promised: set[str] = set()
    ended: list[str] = []
    at_work: list[str] = []
    for action in [*actions, "lose", *["claim", "done"] * 30]:
        match action:
            case "accept":
                promised.update(record.id for record in accepted(server, job()))
            case "claim":
                taken = server.claim()
                at_work += [taken[0].id] if taken else []
            case "done" if at_work:
                job_id = at_work.pop()
                ended += [job_id] if server.end(job_id, "done") else []
            case "cancel" if promised:
                server.wish(min(promised), "cancel")
            case "lose":
                server, at_work = Ledger(database), []
                server.take_back(everything=True)
            case "stop":
                server.hand_back()
                at_work = []
    assert len(ended) == len(set(ended))
    found = {job_id: server.find(job_id) for job_id in promised}
    states: dict[str, State] = {job_id: record.state for job_id, record in found.items() if record}
    assert set(states) == promised
    assert all(state in ("done", "cancelled", "failed") for state in states.values())
    assert {job_id for job_id, state in states.items() if state == "done"} == set(ended) & promised
