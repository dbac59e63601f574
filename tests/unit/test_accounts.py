import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from darkroom import cli
from darkroom.accounts import check_access, exposures, is_loopback
from darkroom.credentials import Credentials, PasswordHash, read, write
from darkroom.settings import Settings


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str, typed: str = "") -> Any:
    return CliRunner().invoke(cli.app, list(arguments), input=typed)


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", "", text))


def refusal(**settings: Any) -> str:
    """What a server that is configured like this is refused with; empty if it may start."""
    try:
        check_access(Settings(**settings))
    except typer.BadParameter as error:
        return str(error)
    return ""


def test_a_user_is_added_and_changed_and_removed() -> None:
    file = Path("users")
    done = run("user", "add", "alice", "--api-auth-file", str(file), typed="correct horse\n")
    assert done.exit_code == 0, done.output
    assert read(file).users["alice"].matches(b"correct horse")
    run("user", "add", "alice", "--api-auth-file", str(file), typed="another horse\n")
    assert read(file).users["alice"].matches(b"another horse")
    assert run("user", "list", "--api-auth-file", str(file)).output == "alice\n"
    assert run("user", "remove", "alice", "--api-auth-file", str(file)).exit_code == 0
    assert not read(file).users


def test_a_key_is_printed_once_and_works() -> None:
    done = run("key", "add", "laptop", "--api-auth-file", "users")
    key = done.stdout.strip()
    assert read(Path("users")).find_key(key.encode()) == "laptop"
    assert key not in Path("users").read_text()
    assert run("key", "list", "--api-auth-file", "users").output == "laptop\n"
    assert run("key", "remove", "laptop", "--api-auth-file", "users").exit_code == 0
    assert not read(Path("users")).keys


@pytest.mark.parametrize("where", ["environment", "file"])
def test_the_configured_file_is_used(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "environment":
        monkeypatch.setenv("DARKROOM_API_AUTH_FILE", "ours")
    else:
        Path("darkroom.toml").write_text('api_auth_file = "ours"\n')
    assert run("key", "add", "laptop").exit_code == 0
    assert set(read(Path("ours")).keys) == {"laptop"}


@pytest.mark.parametrize(
    ("arguments", "typed", "told"),
    [
        (("user", "add", "alice"), "correct horse\n", "say which file"),
        (("user", "add", "alice", "--api-auth-file", "users"), "short\n", "at least 8"),
        (("user", "add", "a:b", "--api-auth-file", "users"), "correct horse\n", "is not a name"),
        (("user", "remove", "alice", "--api-auth-file", "nowhere"), "", "nowhere"),
        (("key", "remove", "alice", "--api-auth-file", "darkroom.toml"), "", "line 1 cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: tuple[str, ...], typed: str, told: str) -> None:
    if "darkroom.toml" in arguments:
        Path("darkroom.toml").write_text("port = 1\n")
    done = run(*arguments, typed=typed)
    assert done.exit_code == 2
    assert told in plain(done.output)
    assert "Traceback" not in done.output
    assert not Path("users").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    assert refusal(host=host) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "", "no-such-name.invalid"])
def test_other_machines_are_not_let_in_without_a_password(host: str) -> None:
    assert not is_loopback(host)
    assert "no password is set" in refusal(host=host)
    assert refusal(host=host, insecure_no_auth=True) == ""
    assert refusal(host=host, api_auth="me:secret") == ""


def test_listen_binds_every_interface_unless_a_host_is_named() -> None:
    assert Settings(listen=True).bind_host == "0.0.0.0"
    assert Settings(listen=True, host="10.0.0.1").bind_host == "10.0.0.1"
    assert Settings().bind_host == "127.0.0.1"
    assert "no password is set" in refusal(listen=True)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 0),
        ({"cors_allow_origins": "https://ui.example"}, 0),
        ({"cors_allow_origins": "*"}, 1),
        ({"listen": True}, 1),
        ({"listen": True, "cors_allow_origins": "*"}, 2),
        ({"listen": True, "cors_allow_origins": "*", "api_auth": "me:secret"}, 0),
    ],
)
def test_what_is_open_to_strangers_is_said_at_the_start(settings: dict[str, Any], count: int) -> None:
    assert len(list(exposures(Settings(**settings)))) == count


def test_serve_refuses_before_it_binds_or_loads_anything() -> None:
    done = run("serve", "--listen", "--port", "0")
    assert done.exit_code == 2
    assert "--insecure-no-auth" in plain(done.output)


def test_a_file_that_lets_nobody_in_is_told_at_the_start(tmp_path: Path) -> None:
    assert "nowhere" in refusal(api_auth_file=tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.touch()
    assert "darkroom user add" in refusal(api_auth_file=empty)
    assert refusal(api_auth_file=empty, api_auth="me:secret") == ""
    write(empty, Credentials(users={"alice": PasswordHash(salt=bytes(16), digest=bytes(32))}))
    assert refusal(api_auth_file=empty) == ""


def test_key_and_certificate_come_together_and_are_looked_at_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="together"):
        Settings(tls_keyfile=tmp_path / "key")
    assert "cannot be used for TLS" in refusal(tls_keyfile=tmp_path / "key", tls_certfile=tmp_path / "cert")
    for name in ("key", "cert"):
        (tmp_path / name).write_text("nonsense")
    assert "cannot be used for TLS" in refusal(tls_keyfile=tmp_path / "key", tls_certfile=tmp_path / "cert")


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
def test_a_key_with_a_password_is_refused_instead_of_asked_for(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-keyout", "key", "-out"]
    subprocess.run([*command, "cert", "-subj", "/CN=localhost"], cwd=tmp_path, check=True, capture_output=True)
    assert "protected by a password" in refusal(tls_keyfile=tmp_path / "key", tls_certfile=tmp_path / "cert")


def test_a_pattern_of_origins_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        Settings(cors_allow_origins_regex="(")


@pytest.mark.parametrize(("given", "root"), [("", ""), ("sd", "/sd"), ("/a/b/", "/a/b")])
def test_a_subpath_may_be_written_with_or_without_slashes(given: str, root: str) -> None:
    assert Settings(subpath=given).root_path == root


def test_what_a_key_may_do_is_said_when_it_is_made_and_changed_later() -> None:
    said = ("--scope", "generate", "--scope", "read", "--rate", "60/min", "--jobs", "4", "--work", "500")
    done = run("key", "add", "phone", *said, "--priority", "3", "--api-auth-file", "users")
    assert done.exit_code == 0, done.output
    listed = "phone scope=generate+read rate=60/min jobs=4 work=500/h priority=3\n"
    assert run("key", "list", "--api-auth-file", "users").output == listed
    run("key", "change", "phone", "--jobs", "any", "--rate", "2/s", "--scope", "any", "--api-auth-file", "users")
    assert str(read(Path("users")).key_allowance("phone")) == "rate=2/s work=500/h priority=3"
    assert read(Path("users")).find_key(done.stdout.strip().encode()) == "phone"


def test_a_user_keeps_what_a_new_password_does_not_change() -> None:
    file = ("--api-auth-file", "users")
    run("user", "add", "guest", "--scope", "read", *file, typed="correct horse\n")
    run("user", "add", "guest", *file, typed="another horse\n")
    assert run("user", "list", *file).output == "guest scope=read\n"
    run("user", "change", "guest", "--scope", "any", "--jobs", "2", *file)
    assert run("user", "list", *file).output == "guest jobs=2\n"
    assert read(Path("users")).users["guest"].matches(b"another horse")
    run("user", "remove", "guest", *file)
    run("user", "add", "guest", *file, typed="correct horse\n")
    assert run("user", "list", *file).output == "guest\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("key", "add", "a", "--scope", "write"), "is not made of generate, read, admin"),
        (("key", "add", "a", "--rate", "fast"), "60/min"),
        (("key", "add", "a", "--priority", "99"), "from -10 to 10"),
        (("key", "change", "nobody", "--jobs", "2"), "there is no key 'nobody'"),
        (("user", "change", "nobody", "--jobs", "2"), "there is no user 'nobody'"),
    ],
)
def test_what_nobody_can_be_allowed_is_told(arguments: tuple[str, ...], words: str) -> None:
    write(Path("users"), Credentials())
    done = run(*arguments, "--api-auth-file", "users")
    assert done.exit_code == 2
    assert words in plain(done.output)
    assert read(Path("users")) == Credentials()
