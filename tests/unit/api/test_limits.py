"""What limits the work of a user or a key: rate, jobs at once, work in an hour, priority; and who asked for what."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.allowances import ADMINISTRATOR, Allowance, Rate, parse
from darkroom.api.limits import work_of
from darkroom.credentials import Credentials, write
from darkroom.engine.client import Standing
from tests.unit.api.conftest import Serve
from tests.unit.api.fake_engine import FakeEngine
from tests.unit.engine.fake_runner import make_spec

TXT2IMG = "/sdapi/v1/txt2img"
SMALL = {"prompt": "a cat", "width": 1000, "height": 1000, "steps": 2, "seed": 5}
LATER = {"Prefer": "respond-async"}
LIMIT_S = 10.0


class Door:
    """A server, and keys with what each may do."""

    def __init__(self, serve: Serve, folder: Path, allowances: dict[str, Allowance], **settings: Any) -> None:
        self.keys: dict[str, str] = {}
        credentials = Credentials()
        for name, allowance in {**allowances, "admin": ADMINISTRATOR}.items():
            credentials, self.keys[name] = credentials.with_key(name, allowance)
        write(folder / "credentials", credentials)
        self.client = serve(api_auth_file=folder / "credentials", **settings)

    def ask(self, key: str, method: str, path: str, **sent: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[key]}", **sent.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **sent)

    def draw(self, key: str = "ann", **changes: Any) -> Any:
        headers = changes.pop("headers", {})
        return self.ask(key, "POST", TXT2IMG, json={**SMALL, **changes}, headers=headers)

    def promise(self, key: str = "ann", **changes: Any) -> Any:
        return self.draw(key, headers={**LATER, **changes.pop("headers", {})}, **changes)

    def end_of(self, job_id: str, key: str = "admin") -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while True:
            document: dict[str, Any] = self.ask(key, "GET", f"/jobs/{job_id}").json()
            if document["state"] not in ("queued", "running"):
                return document
            assert time.monotonic() < deadline, document
            time.sleep(0.02)

    def entries(self, count: int, **wanted: Any) -> list[dict[str, Any]]:
        """The audit, once it has so many entries that have ended."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            found: list[dict[str, Any]] = self.ask("admin", "GET", "/audit", params=wanted).json()["entries"]
            if len(found) == count and all(entry["ended_at"] for entry in found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


def make(serve: Serve, folder: Path, text: str = "", **settings: Any) -> Door:
    return Door(serve, folder, {"ann": parse(text.split()), "ben": Allowance()}, **settings)


def refused(answer: Any, word: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, "over_limit"), answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["detail"].startswith(f"{word}:")


@pytest.mark.parametrize("headers", [{}, LATER])
def test_a_rate_is_kept_and_is_one_s_own(serve: Serve, tmp_path: Path, headers: dict[str, str]) -> None:
    door = make(serve, tmp_path, "rate=2/min")
    codes = [door.draw(headers=headers).status_code for _ in range(2)]
    assert set(codes) <= {200, 202}
    answer = door.draw(headers=headers)
    refused(answer, "rate")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert door.draw("ben").status_code == 200
    assert door.ask("ann", "GET", "/jobs").status_code == 200  # what makes no work is not counted


def test_a_rate_of_openai_s_routes_is_refused_in_their_shape(serve: Serve, tmp_path: Path) -> None:
    door = make(serve, tmp_path, "rate=1/h")
    door.draw()
    answer = door.ask("ann", "POST", "/v1/images/generations", json={"prompt": "x"})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "over_limit"


@pytest.fixture
def waited_for(serve: Serve, tmp_path: Path, engine: FakeEngine) -> Iterator[Door]:
    """Ann may have two jobs, and waits for one."""
    door = make(serve, tmp_path, "jobs=2")
    engine.held = True
    thread = threading.Thread(target=door.draw)
    thread.start()
    deadline = time.monotonic() + LIMIT_S
    while not engine.jobs():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield door
    engine.held = False
    for job in engine.jobs():
        engine.finish(job.job_id)
    thread.join()


def test_jobs_at_once_are_those_that_are_waited_for_and_those_that_are_promised(
    waited_for: Door, engine: FakeEngine
) -> None:
    second = waited_for.promise()
    assert second.status_code == 202
    refused(waited_for.promise(), "jobs")
    refused(waited_for.draw(), "jobs")
    assert waited_for.promise("ben").status_code == 202
    waited_for.ask("ann", "DELETE", f"/jobs/{second.json()['id']}")
    waited_for.end_of(second.json()["id"])
    third = waited_for.promise()
    assert third.status_code == 202
    again = waited_for.ask("ann", "POST", f"/jobs/{third.json()['id']}/rerun")
    refused(again, "jobs")


def test_a_retry_with_the_same_key_is_no_further_job(serve: Serve, tmp_path: Path, engine: FakeEngine) -> None:
    door = make(serve, tmp_path, "jobs=1 work=10")
    engine.is_ready = False
    first = door.promise(headers={"Idempotency-Key": "k"})
    for _ in range(6):  # and it costs nothing
        assert door.promise(headers={"Idempotency-Key": "k"}).json()["id"] == first.json()["id"]
    refused(door.promise(), "jobs")
    engine.is_ready = True


def test_work_is_counted_by_the_hour_and_survives_a_restart(serve: Serve, tmp_path: Path) -> None:
    door = make(serve, tmp_path, "work=5")
    assert door.draw().status_code == 200  # 1 megapixel, 2 steps
    assert door.promise().status_code == 202
    refused(door.draw(), "work")
    assert door.draw(steps=1).status_code == 200
    answer = door.draw(steps=1)
    refused(answer, "work")
    assert 3500 <= int(answer.headers["Retry-After"]) <= 3600
    assert door.draw("ben", steps=20).status_code == 200
    again = serve(api_auth_file=tmp_path / "credentials")
    headers = {"Authorization": f"Bearer {door.keys['ann']}"}
    refused(again.post(TXT2IMG, json={**SMALL, "steps": 1}, headers=headers), "work")


def test_what_is_too_much_for_any_hour_is_never_let_in(serve: Serve, tmp_path: Path) -> None:
    answer = make(serve, tmp_path, "work=5").draw(batch_size=3)
    assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")


def test_what_fails_or_is_dropped_from_the_queue_is_not_counted(
    serve: Serve, tmp_path: Path, engine: FakeEngine
) -> None:
    door = make(serve, tmp_path, "work=2")
    engine.capacity = 0
    assert door.draw().json()["code"] == "busy"
    engine.capacity = 100
    engine.is_ready = False
    deadline = time.monotonic() + LIMIT_S
    while (first := door.promise()).status_code == 429:  # the count is given back a moment later
        assert time.monotonic() < deadline
    refused(door.promise(), "work")
    door.ask("ann", "DELETE", f"/jobs/{first.json()['id']}")
    assert door.promise().status_code == 202
    engine.is_ready = True


def test_a_script_s_pictures_are_all_counted(serve: Serve, tmp_path: Path, engine: FakeEngine) -> None:
    door = make(serve, tmp_path, "work=100")
    script: dict[str, Any] = {"script_name": "Prompt matrix", "script_args": [False, False, "positive", "comma", 0]}
    assert door.draw(prompt="a|b|c", **script).status_code == 200
    [entry] = door.entries(1, owner="ann")
    assert entry["work"] == pytest.approx(2.0 * len(engine.specs))
    assert len(engine.specs) == 4
    assert entry["images"] == 4


def test_the_work_of_a_job_is_its_pixels_times_its_steps() -> None:
    assert work_of(make_spec(size=1000, steps=20)) == 20
    assert work_of(make_spec(size=1000, steps=20, seeds=range(6), n_iter=3)) == 120


@pytest.mark.parametrize(
    ("priority", "status"), [("0", 202), ("5", 202), ("-10", 202), ("6", 422), ("-11", 422), ("x", 422), ("1.5", 422)]
)
def test_a_priority_is_bounded_by_what_is_allowed(serve: Serve, tmp_path: Path, priority: str, status: int) -> None:
    door = make(serve, tmp_path, "priority=5")
    answer = door.promise(headers={"X-Darkroom-Priority": priority})
    assert answer.status_code == status, answer.text
    if status == 202:
        assert answer.json()["priority"] == int(priority)
        assert door.end_of(answer.json()["id"])["priority"] == int(priority)
    assert door.promise("ben", headers={"X-Darkroom-Priority": "1"}).status_code == 422


def test_a_priority_reaches_the_engine_waited_for_or_not(serve: Serve, tmp_path: Path, engine: FakeEngine) -> None:
    door = make(serve, tmp_path, "priority=5")
    assert door.ask("ann", "POST", f"{TXT2IMG}?priority=4", json=SMALL).status_code == 200
    door.end_of(door.promise(headers={"X-Darkroom-Priority": "-3"}).json()["id"])
    door.draw("ben")
    assert list(engine.standings.values()) == [
        Standing(party="ann", priority=4),
        Standing(party="ann", priority=-3),
        Standing(party="ben"),
    ]


def test_who_may_ask_for_low_priorities_alone_gets_the_highest_of_them(serve: Serve, tmp_path: Path) -> None:
    assert make(serve, tmp_path, "priority=-5").promise().json()["priority"] == -5


def test_where_nobody_is_asked_who_they_are_everybody_may_ask_for_any_priority(serve: Serve) -> None:
    client = serve()
    for priority, status in (("10", 202), ("11", 422)):
        headers = {**LATER, "X-Darkroom-Priority": priority}
        assert client.post(TXT2IMG, json=SMALL, headers=headers).status_code == status


def test_nobody_fills_the_book_alone(serve: Serve, tmp_path: Path, engine: FakeEngine) -> None:
    door = make(serve, tmp_path, max_jobs=8)
    engine.is_ready = False
    codes = [door.promise().status_code for _ in range(8)]
    assert codes == [202] * 6 + [429] * 2
    assert door.promise("ben").status_code == 202
    engine.is_ready = True


# The audit


def test_it_is_written_down_who_asked_for_what(serve: Serve, tmp_path: Path, engine: FakeEngine) -> None:
    door = make(serve, tmp_path)
    before = time.time()
    door.draw()
    promised = door.promise("ben", prompt="a dog", seed=6, headers={"X-Darkroom-Priority": "-1"}).json()["id"]
    door.end_of(promised)
    engine.crash = ValueError()
    door.draw(prompt="no cat")
    crashed, dog, cat = door.entries(3)
    assert (cat["owner"], cat["kind"], cat["state"], cat["prompt"]) == ("ann", "txt2img", "done", "a cat")
    assert (cat["width"], cat["height"], cat["steps"], cat["seed"], cat["images"]) == (1000, 1000, 2, 5, 1)
    assert (cat["work"], cat["model"].split()[0]) == (2.0, "small-a.safetensors")
    assert before <= cat["at"] <= cat["ended_at"] <= time.time()
    assert (dog["id"], dog["owner"], dog["state"], dog["priority"]) == (promised, "ben", "done", -1)
    assert (dog["prompt"], dog["seed"], dog["images"]) == ("a dog", 6, 1)
    assert (crashed["state"], crashed["images"]) == ("failed", 0)


def test_whoever_removes_jobs_and_pictures_removes_nothing_of_it(serve: Serve, tmp_path: Path) -> None:
    door = make(serve, tmp_path)
    job_id = door.promise().json()["id"]
    [image] = door.end_of(job_id)["images"]
    before = door.entries(1)
    assert door.ask("ann", "DELETE", f"/images/{image['id']}").status_code == 204
    assert door.ask("ann", "DELETE", f"/jobs/{job_id}?forget=true").status_code == 200
    assert door.ask("ann", "GET", f"/jobs/{job_id}").status_code == 404
    assert door.entries(1) == before


def test_a_job_that_is_done_again_is_written_down_again(serve: Serve, tmp_path: Path) -> None:
    door = make(serve, tmp_path)
    first = door.promise().json()["id"]
    door.end_of(first)
    again = door.ask("admin", "POST", f"/jobs/{first}/rerun").json()
    assert again["owner"] == "admin"
    door.end_of(again["id"])
    second, [one] = door.entries(2)[0], door.entries(1, owner="ann")
    assert (second["owner"], second["prompt"], second["work"]) == ("admin", one["prompt"], one["work"])


def test_the_audit_is_listed_in_parts_and_only_for_administrators(serve: Serve, tmp_path: Path) -> None:
    door = Door(serve, tmp_path, {"ann": Allowance(), "reader": Allowance(scopes=frozenset({"read"}))})
    for _ in range(3):
        door.draw()
    door.draw("admin")
    entries = door.entries(4)
    page = door.ask("admin", "GET", "/audit?limit=3").json()
    rest = door.ask("admin", "GET", "/audit", params={"limit": 3, "before": page["next"]}).json()
    assert [*page["entries"], *rest["entries"]] == entries
    assert rest["next"] is None
    since = entries[1]["at"]
    assert door.ask("admin", "GET", "/audit", params={"since": since}).json()["entries"] == entries[:2]
    assert door.ask("admin", "GET", "/audit", params={"until": since}).json()["entries"] == entries[2:]
    assert door.ask("reader", "GET", "/audit").json()["code"] == "missing_scope"
    own = door.ask("ann", "GET", "/audit?owner=admin").json()["entries"]
    assert {entry["owner"] for entry in own} == {"ann"}
    assert door.ask("admin", "GET", "/audit?before=nonsense").status_code == 422


def test_nothing_is_written_down_where_the_operator_wants_that(serve: Serve, tmp_path: Path) -> None:
    door = make(serve, tmp_path, audit_days=0)
    door.draw()
    door.end_of(door.promise().json()["id"])
    assert door.ask("admin", "GET", "/audit").json()["entries"] == []


def test_where_nobody_is_asked_who_they_are_nothing_is_written_down(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    client.post(TXT2IMG, json=SMALL)
    assert not (tmp_path / "history.db").exists()
    assert client.get("/audit").json() == {"entries": [], "next": None}


# How it is written


@pytest.mark.parametrize(
    "text",
    ["", "scope=read", "scope=generate+read+admin", "rate=60/min", "rate=1/s", "rate=1000/h", "jobs=4", "work=500/h",
     "work=0.125/h", "work=123456789.5/h", "priority=-10", "scope=read rate=2/s jobs=1 work=7/h priority=10"],
)  # fmt: skip
def test_an_allowance_is_read_as_it_is_written(text: str) -> None:
    assert str(parse(text.split())) == text


@pytest.mark.parametrize(
    "text",
    ["scope=", "scope=write", "scope=read,admin", "rate=0", "rate=60/day", "rate=-1", "jobs=0", "jobs=many", "work=0",
     "work=-1", "work=nan", "work=inf", "work=1e9", "priority=11", "priority=1.5", "nonsense", "x=1",
     "jobs=1 jobs=2"],
)  # fmt: skip
def test_nothing_else_is_an_allowance(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text.split())


def test_a_rate_without_a_unit_is_by_the_minute() -> None:
    assert parse(["rate=5"]).rate == Rate(count=5, per_s=60)
