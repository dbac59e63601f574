import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.allowances import SCOPES, Allowance, Rate
from darkroom.credentials import KEY_PREFIX, Credentials, CredentialsError, PasswordHash, read, write

ALICE = Credentials().with_user("alice", "correct horse")


def test_a_password_matches_its_hash_and_no_other_does() -> None:
    kept = ALICE.users["alice"]
    assert kept.matches(b"correct horse")
    assert not kept.matches(b"correct horsf")
    assert not kept.matches(b"")


def test_the_same_password_is_never_hashed_to_the_same_text() -> None:
    assert str(PasswordHash.of("correct horse")) != str(PasswordHash.of("correct horse"))


def test_what_is_written_can_be_read_and_holds_neither_password_nor_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "credentials"
    both, key = ALICE.with_key("laptop")
    write(path, both)
    assert read(path) == both
    assert read(path).find_key(key.encode()) == "laptop"
    assert read(path).users["alice"].matches(b"correct horse")
    text = path.read_text()
    assert "correct horse" not in text
    assert key.removeprefix(KEY_PREFIX) not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["credentials"]


def test_comments_and_empty_lines_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"# ours\n\nuser alice {ALICE.users['alice']}\n")
    assert read(path) == ALICE


@pytest.mark.parametrize(
    "line",
    [
        "user alice",
        "user alice secret",
        "user alice scrypt:16384:8:5:00:11",
        f"user alice scrypt:1073741824:8:1:00:{'11' * 32}",
        f"user alice scrypt:3:8:1:00:{'11' * 32}",
        f"user alice scrypt:0:8:1:00:{'11' * 32}",
        f"user alice bcrypt:2:8:1:00:{'11' * 32}",
        "key laptop 1234",
        "key laptop sha256:12",
        f"key laptop sha256:{'zz' * 32}",
        "alice:secret",
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_its_number_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(CredentialsError, match="line 2 cannot be read") as caught:
        read(path)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="nowhere"):
        read(tmp_path / "nowhere")


def test_keys_are_long_and_never_the_same() -> None:
    made = {Credentials().with_key("a")[1] for _ in range(20)}
    assert len(made) == 20
    assert all(len(key) >= len(KEY_PREFIX) + 43 for key in made)


@given(st.binary(max_size=80))
def test_nothing_else_is_a_key(guess: bytes) -> None:
    credentials, key = Credentials().with_key("a")
    assert (credentials.find_key(guess) is not None) == (guess == key.encode())


@pytest.mark.parametrize("name", ["", "a b", "a:b", "#a", "a" * 65, "a\n"])
def test_a_name_that_the_file_could_not_hold_is_refused(name: str) -> None:
    with pytest.raises(CredentialsError):
        Credentials().with_user(name, "correct horse")
    with pytest.raises(CredentialsError):
        Credentials().with_key(name)


def test_a_short_password_is_refused() -> None:
    with pytest.raises(CredentialsError, match="at least 8"):
        Credentials().with_user("alice", "1234567")


def test_who_is_removed_is_gone_and_who_is_unknown_cannot_be_removed() -> None:
    assert ALICE.without_user("alice") == Credentials()
    assert ALICE.with_key("a")[0].without_key("a") == ALICE
    with pytest.raises(CredentialsError, match="'bob'"):
        ALICE.without_user("bob")
    with pytest.raises(CredentialsError, match="'a'"):
        ALICE.without_key("a")


def test_a_key_is_not_replaced_by_chance() -> None:
    with pytest.raises(CredentialsError, match="already"):
        ALICE.with_key("a")[0].with_key("a")


LIMITED = Allowance(scopes=frozenset({"read"}), rate=Rate(count=5), jobs=2, work=1.5, priority=-1)


def test_what_somebody_may_do_is_kept_with_the_name(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    both, _ = ALICE.with_user_allowance("alice", LIMITED).with_key("laptop", LIMITED)
    write(path, both)
    assert read(path) == both
    assert read(path).user_allowance("alice") == read(path).key_allowance("laptop") == LIMITED
    assert read(path).user_allowance("bob") == Allowance()


def test_a_line_that_says_nothing_of_it_allows_what_it_always_did(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"user alice {ALICE.users['alice']}\nkey laptop sha256:{'0' * 64}\n")
    for allowance in (read(path).user_allowance("alice"), read(path).key_allowance("laptop")):
        assert all(allowance.allows(scope) for scope in SCOPES)
        assert not allowance.sees_all


def test_where_two_have_a_name_its_allowance_is_the_second_one_s() -> None:
    limited = ALICE.with_user_allowance("alice", LIMITED)
    assert limited.joined(ALICE).user_allowance("alice") == Allowance()
    assert ALICE.joined(limited).user_allowance("alice") == LIMITED


def test_whoever_is_removed_leaves_no_allowance() -> None:
    gone = ALICE.with_user_allowance("alice", LIMITED).without_user("alice")
    assert gone == Credentials()


def test_an_allowance_that_cannot_be_read_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"\nkey laptop sha256:{'0' * 64} scope=everything\n")
    with pytest.raises(CredentialsError, match="line 2"):
        read(path)
