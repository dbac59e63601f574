"""Calls: due when their moment has come, made until they are heard, and never by two servers at once."""

from dataclasses import replace

import pytest

from darkroom.history.database import Database
from darkroom.history.ledger import FINAL, Asked, Hook, Ledger, Record, State, new_id
from darkroom.history.webhooks import HOLD_S, LONGEST_WAIT_S, Outbox
from tests.clock import Clock

ASKED = Asked(path="/sdapi/v1/txt2img", body=b"{}")
URL = "https://example.com/hook?token=t"


@pytest.fixture
def outbox(database: Database, clock: Clock) -> Outbox:
    return Outbox(database, clock)


def accept(ledger: Ledger, events: tuple[str, ...] = FINAL) -> Record:
    record = Record(id=new_id(), kind="txt2img", owner="ann", state="queued", durable=True, submitted_at=999.0)
    return ledger.accept(record, ASKED, Hook(url=URL, events=events))[0]


def settle(outbox: Outbox, call_id: str, error: str | None, most_tries: int = 3) -> str:
    return outbox.settle(call_id, error, most_tries=most_tries, wait_s=5.0)


def end(ledger: Ledger, record: Record, state: State = "done") -> None:
    ledger.claim()
    assert ledger.end(record.id, state, error=("x", "y") if state == "failed" else None)


def test_a_call_is_due_when_the_job_has_ended(ledger: Ledger, outbox: Outbox) -> None:
    record = accept(ledger)
    assert outbox.claim(9) == []
    ledger.claim()
    assert outbox.claim(9) == []
    ledger.end(record.id, "done")
    [due] = outbox.claim(9)
    assert (due.event, due.url, due.tries, due.job.id, due.job.state) == ("done", URL, 1, record.id, "done")
    assert outbox.claim(9) == []
    assert settle(outbox, due.id, None) == "delivered"
    [call] = outbox.of_job(record.id)
    assert (call.state, call.tries, call.delivered_at, call.error) == ("delivered", 1, 1000.0, None)


def test_a_job_that_was_cancelled_in_the_queue_is_told_of(ledger: Ledger, outbox: Outbox) -> None:
    record = accept(ledger, ("started", "cancelled"))
    ledger.wish(record.id, "cancel")
    assert [due.event for due in outbox.claim(9)] == ["cancelled"]
    assert [call.state for call in outbox.of_job(record.id)] == ["unwanted", "waiting"]


def test_the_beginning_is_told_to_whoever_asked(ledger: Ledger, outbox: Outbox) -> None:
    record = accept(ledger, ("started", "done"))
    ledger.claim()
    [due] = outbox.claim(9)
    assert due.event == "started"
    settle(outbox, due.id, None)
    ledger.end(record.id, "done")
    [due] = outbox.claim(9)
    assert due.event == "done"


def test_nobody_is_told_of_an_end_that_was_not_asked_for(ledger: Ledger, outbox: Outbox) -> None:
    record = accept(ledger, ("failed",))
    end(ledger, record)
    assert outbox.claim(9) == []
    assert [call.state for call in outbox.of_job(record.id)] == ["unwanted"]


def test_waits_grow_until_the_call_is_given_up(ledger: Ledger, outbox: Outbox, clock: Clock) -> None:
    record = accept(ledger)
    end(ledger, record)
    ids = set()
    for tries, wait_s in ((1, 5.0), (2, 20.0), (3, None)):
        [due] = outbox.claim(9)
        ids.add(due.id)
        assert due.tries == tries
        assert settle(outbox, due.id, "it answered 500") == ("waiting" if wait_s else "given_up")
        if wait_s:
            clock.now += wait_s - 0.5
            assert outbox.claim(9) == []
            clock.now += 0.5
    clock.now += 1e6
    assert outbox.claim(9) == []
    [call] = outbox.of_job(record.id)
    assert (call.state, call.tries, call.error) == ("given_up", 3, "it answered 500")
    assert ids == {call.id}


def test_no_wait_is_longer_than_an_hour(ledger: Ledger, outbox: Outbox, clock: Clock) -> None:
    end(ledger, accept(ledger))
    for _ in range(12):
        [due] = outbox.claim(9)
        settle(outbox, due.id, "it cannot be reached", most_tries=99)
        clock.now += LONGEST_WAIT_S
    assert due.tries == 12


def test_a_server_that_is_lost_in_a_call_leaves_it_to_the_others(
    ledger: Ledger, outbox: Outbox, clock: Clock, database: Database
) -> None:
    record = accept(ledger)
    end(ledger, record)
    [lost] = outbox.claim(9)
    clock.now += HOLD_S - 1
    assert Outbox(database, clock).claim(9) == []
    clock.now += 1
    [again] = Outbox(database, clock).claim(9)
    assert again == replace(lost, tries=2)


def test_a_call_that_was_handed_back_was_no_try(ledger: Ledger, outbox: Outbox) -> None:
    record = accept(ledger)
    end(ledger, record)
    [due] = outbox.claim(9)
    outbox.hand_back(due.id)
    assert outbox.claim(9) == [due]
    assert outbox.of_job(record.id)[0].tries == 1


def test_a_job_that_is_removed_takes_its_calls_along(ledger: Ledger, outbox: Outbox) -> None:
    record = accept(ledger)
    end(ledger, record)
    [due] = outbox.claim(9)
    ledger.remove(record.id)
    assert settle(outbox, due.id, None) == "unwanted"
    assert outbox.of_job(record.id) == []


def test_promises_are_counted_by_state(ledger: Ledger) -> None:
    for _ in range(3):
        accept(ledger)
    ledger.claim()
    assert ledger.count_promised() == {"queued": 2, "running": 1}
