"""Who asked for what: kept apart from jobs and pictures."""

from dataclasses import replace

import pytest

from darkroom.errors import BadRequest, OverLimit
from darkroom.history.audit import PROMPT_CHARS, Audit, Entry, Wanted
from darkroom.history.database import Database
from darkroom.history.ledger import MAX_ATTEMPTS, Ledger, Record
from darkroom.turns import PATIENCE_S
from tests.clock import Clock
from tests.unit.history.test_ledger import ASKED, job, picture


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


def entry(record: Record) -> Entry:
    return Entry(
        id=record.id, owner=record.owner, at=record.submitted_at, kind="txt2img", prompt="a cat", seed=2**40, width=64,
        height=64, steps=2, work=0.5, priority=record.priority,
    )  # fmt: skip


def accepted(ledger: Ledger, record: Record) -> Record:
    ledger.accept(record, ASKED, entry=entry(record))
    return record


def listed(audit: Audit, **wanted: object) -> list[Entry]:
    return audit.search(Wanted(**wanted)).rows  # type: ignore[arg-type]


def test_a_promise_is_written_down_with_the_job_and_how_it_ended(ledger: Ledger, audit: Audit, clock: Clock) -> None:
    record = accepted(ledger, job())
    assert listed(audit) == [entry(record)]
    ledger.claim()
    ledger.end(record.id, "done", pictures=[picture(record), picture(record, 1)], model="m")
    [found] = listed(audit)
    assert (found.state, found.ended_at, found.images, found.model) == ("done", clock.now, 2, "m")


def test_whoever_removes_a_job_removes_nothing_here(ledger: Ledger, audit: Audit, clock: Clock) -> None:
    record = accepted(ledger, job())
    ledger.claim()
    ledger.end(record.id, "done", pictures=[picture(record)])
    before = listed(audit)
    assert ledger.remove(record.id) is not None
    clock.now += 1e9
    ledger.forget_before(clock.now)
    assert ledger.find(record.id) is None
    assert listed(audit) == before


def test_every_end_is_noted(ledger: Ledger, audit: Audit, clock: Clock) -> None:
    dropped = accepted(ledger, job())
    ledger.wish(dropped.id, "cancel")
    hopeless = accepted(ledger, job())
    for _ in range(MAX_ATTEMPTS):
        ledger.claim()
        clock.now += 1000
        ledger.take_back()
    assert {one.id: one.state for one in listed(audit)} == {dropped.id: "cancelled", hopeless.id: "failed"}


def test_an_end_is_noted_once(ledger: Ledger, audit: Audit) -> None:
    record = accepted(ledger, job())
    ledger.wish(record.id, "cancel")
    [first] = listed(audit)
    ledger.wish(record.id, "cancel")
    ledger.take_back(everything=True)
    assert listed(audit) == [first]


def test_entries_are_found_by_owner_kind_and_time_in_pages(audit: Audit) -> None:
    for number in range(10):
        audit.enter(
            Entry(id=f"{number}", owner=f"u{number % 2}", at=float(number), kind="extras" if number == 4 else "txt2img")
        )
    assert [one.id for one in listed(audit, owner="u0")] == ["8", "6", "4", "2", "0"]
    assert [one.id for one in listed(audit, since=3.0, until=5.0)] == ["4", "3"]
    assert [one.id for one in listed(audit, kind="extras")] == ["4"]
    page = audit.search(Wanted(limit=4))
    following = audit.search(Wanted(limit=10, before=page.next))
    assert [one.id for one in (*page.rows, *following.rows)] == [f"{number}" for number in range(9, -1, -1)]
    assert following.next is None
    with pytest.raises(BadRequest):
        audit.search(Wanted(before="nonsense"))


def test_a_prompt_is_kept_in_part_and_old_entries_go(audit: Audit) -> None:
    audit.enter(Entry(id="a", owner="u", at=1.0, kind="txt2img", prompt="x" * 5000))
    audit.enter(Entry(id="b", owner="u", at=2.0, kind="txt2img"))
    assert audit.find("a") == Entry(id="a", owner="u", at=1.0, kind="txt2img", prompt="x" * PROMPT_CHARS)
    audit.forget_before(2.0)
    assert [one.id for one in listed(audit)] == ["b"]


def test_whatever_a_client_may_send_can_be_written_down(audit: Audit) -> None:
    audit.enter(Entry(id="a", owner="u", at=1.0, kind="txt2img", prompt="a\0b\ud800c", seed=2**64))
    found = audit.find("a")
    assert found is not None
    assert (found.prompt, found.seed) == ("ab?c", None)


def test_an_owner_has_no_more_open_jobs_than_may_be(ledger: Ledger) -> None:
    first = job(idempotency_key="k")
    assert ledger.accept(first, ASKED, most_open=2)[1]
    assert ledger.accept(job(), ASKED, most_open=2)[1]
    with pytest.raises(OverLimit) as refused:
        ledger.accept(job(), ASKED, most_open=2)
    assert refused.value.retry_after_s > 0
    again, new = ledger.accept(replace(job(), idempotency_key="k"), ASKED, most_open=2)
    assert (again.id, new) == (first.id, False)
    assert ledger.accept(job(owner="ben"), ASKED, most_open=1)[1]
    ledger.claim()
    ledger.end(first.id, "done")
    assert ledger.accept(job(), ASKED, most_open=2)[1]


def test_whoever_has_no_place_here_is_passed_over(ledger: Ledger) -> None:
    accepted(ledger, job(owner="flood"))
    other = accepted(ledger, job(owner="ben"))
    taken = ledger.claim(without=frozenset({"flood"}))
    assert taken is not None
    assert taken[0].id == other.id
    assert ledger.claim(without=frozenset({"flood"})) is None


def test_a_low_priority_has_its_turn_among_high_ones(ledger: Ledger, clock: Clock) -> None:
    low = job(owner="ann", priority=-10, submitted_at=clock.now)
    accepted(ledger, low)
    taken = None
    for number in range(100):
        accepted(ledger, job(owner="ben", priority=10, submitted_at=clock.now))
        taken = ledger.claim()
        assert taken is not None
        ledger.end(taken[0].id, "done")
        if taken[0].id == low.id:
            break
        assert number * 10 < PATIENCE_S
        clock.now += 10
    assert taken is not None
    assert taken[0].id == low.id


def test_open_jobs_are_counted_by_owner(ledger: Ledger) -> None:
    for owner in ("ann", "ann", "ben"):
        accepted(ledger, job(owner=owner))
    ledger.claim()
    assert ledger.open_by_owner() == {"ann": 2, "ben": 1}
