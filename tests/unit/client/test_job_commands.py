"""`darkroom jobs` against a running server."""

import json
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from darkroom.audit_command import audit
from darkroom.errors import BadModelFile
from darkroom.job_commands import jobs
from tests.unit.client.conftest import Running

REQUEST = json.dumps({"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "batch_size": 2})


def run(running: Running, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(jobs, ["--url", running.url, *arguments], input=given)


def test_a_job_is_asked_for_followed_and_fetched(running: Running, tmp_path: Path) -> None:
    job_id = run(running, "submit", "txt2img", given=REQUEST).stdout.strip()
    assert run(running, "wait", job_id).stdout.strip() == "done"
    fetched = run(running, "fetch", job_id, "--to", str(tmp_path / "out"))
    assert fetched.exit_code == 0, fetched.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{job_id}-0.png", f"{job_id}-1.png"]
    assert json.loads(run(running, "show", job_id).stdout)["state"] == "done"
    assert job_id in run(running, "list", "--state", "done").stdout


def test_a_job_that_is_dropped_fails_whoever_waits(running: Running) -> None:
    running.engine.held = True
    job_id = run(running, "submit", "txt2img", given=REQUEST).stdout.strip()
    run(running, "cancel", job_id)
    waited = run(running, "wait", job_id)
    assert (waited.stdout.strip(), waited.exit_code) == ("cancelled", 1)


def test_a_job_that_failed_fails_whoever_fetches_it_and_says_why(running: Running, tmp_path: Path) -> None:
    running.engine.failure = BadModelFile("small-a.safetensors: is cut off")
    job_id = run(running, "submit", "txt2img", given=REQUEST).stdout.strip()
    for arguments in (["wait", job_id], ["fetch", job_id, "--to", str(tmp_path / "out")]):
        found = run(running, *arguments)
        assert found.exit_code == 1
        assert "bad_model_file: small-a.safetensors: is cut off" in " ".join(found.stderr.split())
    assert not (tmp_path / "out").exists()


def test_pictures_that_cannot_be_written_are_said_to_be_so(running: Running, tmp_path: Path) -> None:
    job_id = run(running, "submit", "txt2img", given=REQUEST).stdout.strip()
    (tmp_path / "out").write_text("in the way")
    found = run(running, "fetch", job_id, "--to", str(tmp_path / "out"))
    assert found.exit_code == 2
    assert "cannot be written" in " ".join(found.output.split())


def test_a_job_is_done_again_and_forgotten(running: Running) -> None:
    job_id = run(running, "submit", "txt2img", given=REQUEST).stdout.strip()
    assert run(running, "wait", job_id).exit_code == 0
    again = run(running, "rerun", job_id).stdout.strip()
    assert run(running, "wait", again).stdout.strip() == "done"
    seeds = [
        {image["seed"] for image in json.loads(run(running, "show", one).stdout)["images"]} for one in (job_id, again)
    ]
    assert seeds[0] == seeds[1]
    assert run(running, "forget", again).exit_code == 0
    assert "unknown_name" in run(running, "show", again).output
    running.engine.held = True
    waiting = run(running, "submit", "txt2img", given=REQUEST).stdout.strip()
    assert "has not ended" in run(running, "forget", waiting).output
    assert run(running, "interrupt", waiting).exit_code == 0


def test_what_goes_wrong_is_said_in_words(running: Running) -> None:
    assert "no JSON" in run(running, "submit", "txt2img", given="{").output
    assert "unknown_name" in run(running, "show", "nope").output
    assert "422" in run(running, "submit", "txt2img", given='{"steps": -5}').output
    nobody = CliRunner().invoke(jobs, ["--url", "http://127.0.0.1:1", "list"])
    assert nobody.exit_code == 2
    assert "cannot be reached" in nobody.output


def test_who_asked_for_what_is_listed(guarded: Running) -> None:
    asks = ["--url", guarded.url, "--user", "me:secret"]
    submitted = CliRunner().invoke(jobs, [*asks, "submit", "txt2img", "--priority", "-2"], input=REQUEST)
    assert CliRunner().invoke(jobs, [*asks, "wait", submitted.stdout.strip()]).exit_code == 0
    app = typer.Typer()
    app.command()(audit)
    listed = CliRunner().invoke(app, [*asks, "--json", "--owner", "me", "--since", "2020-01-01"])
    [entry] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (entry["id"], entry["owner"], entry["state"]) == (submitted.stdout.strip(), "me", "done")
    assert (entry["priority"], entry["images"], entry["prompt"]) == (-2, 2, "a cat")
    assert CliRunner().invoke(app, [*asks, "--until", "2020-01-01", "--json"]).stdout == ""
    assert "a cat" in CliRunner(env={"COLUMNS": "200"}).invoke(app, asks).stdout
    wrong = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*asks, "--since", "yesterday"])
    assert (wrong.exit_code, "is not a moment" in wrong.output) == (2, True)
