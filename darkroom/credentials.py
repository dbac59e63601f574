"""Who may use the API: users with passwords, and keys, in a file that holds none of them in clear.

Knows the file's format and its hashes. Knows nothing of HTTP or settings. A line of the file is one of

    user NAME scrypt:N:r:p:SALT:HASH [ALLOWANCE]
    key NAME sha256:HASH [ALLOWANCE]

with salts and hashes in hexadecimal, and what the user or key may do as `allowances` writes it, which is everything if
that is left out; an empty line or one that begins with `#` says nothing. People choose passwords
that can be guessed, so these are hashed with scrypt (Percival and Josefsson 2016, RFC 7914). A key is 256 random bits;
nobody guesses one, and a single SHA-256 hides it.
"""

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

from darkroom.allowances import Allowance
from darkroom.allowances import parse as parse_allowance

T = TypeVar("T")

KEY_PREFIX = "drk_"
"""What every key begins with, so that one that lies about is recognised."""

MIN_PASSWORD_CHARS = 8

_COST, _BLOCKS, _LANES = 2**14, 8, 5
"""scrypt's N, r and p: 16 MiB and some 0.2 s of one core for each guess."""

_MAX_MEMORY = 2**28
_NAME = re.compile(r"[^\s:#][^\s:]{0,63}")


class CredentialsError(ValueError):
    """A file that cannot be read, a name or a password that cannot be taken, or a name that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordHash:
    """A salted scrypt hash; `cost`, `blocks` and `lanes` are scrypt's N, r and p."""

    salt: bytes
    digest: bytes
    cost: int = _COST
    blocks: int = _BLOCKS
    lanes: int = _LANES

    @classmethod
    def of(cls, password: str) -> Self:
        """The hash of a password with a fresh salt."""
        blank = cls(salt=secrets.token_bytes(16), digest=b"")
        return replace(blank, digest=blank._hash(password.encode()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str()` wrote. Raises ValueError."""
        kind, cost, blocks, lanes, salt, digest = text.split(":")
        found = cls(
            salt=bytes.fromhex(salt),
            digest=bytes.fromhex(digest),
            cost=int(cost),
            blocks=int(blocks),
            lanes=int(lanes),
        )
        memory = 128 * found.blocks * (found.cost + found.lanes)
        if kind != "scrypt" or len(found.digest) != 32 or not 0 < memory < _MAX_MEMORY or found.cost.bit_count() != 1:
            raise ValueError("not a hash of a password that could be computed here")
        return found

    def matches(self, password: bytes) -> bool:
        """Whether it is the hash of that password; takes as long either way."""
        return secrets.compare_digest(self._hash(password), self.digest)

    def _hash(self, password: bytes) -> bytes:
        return hashlib.scrypt(
            password, salt=self.salt, n=self.cost, r=self.blocks, p=self.lanes, maxmem=_MAX_MEMORY, dklen=32
        )

    def __str__(self) -> str:
        return f"scrypt:{self.cost}:{self.blocks}:{self.lanes}:{self.salt.hex()}:{self.digest.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Users and keys by name; of a key the SHA-256. What they may do is in the allowances, where it is limited."""

    users: Mapping[str, PasswordHash] = field(default_factory=dict)
    keys: Mapping[str, bytes] = field(default_factory=dict)
    user_allowances: Mapping[str, Allowance] = field(default_factory=dict)
    key_allowances: Mapping[str, Allowance] = field(default_factory=dict)

    def with_user(self, name: str, password: str, allowance: Allowance | None = None) -> "Credentials":
        """With one user more, or with a new password for one, who keeps the allowance if none is given. Raises
        CredentialsError.
        """
        _check_name(name)
        if len(password) < MIN_PASSWORD_CHARS:
            raise CredentialsError(f"a password must have at least {MIN_PASSWORD_CHARS} characters")
        changed = replace(self, users={**self.users, name: PasswordHash.of(password)})
        return changed if allowance is None else changed.with_user_allowance(name, allowance)

    def with_key(self, name: str, allowance: Allowance | None = None) -> "tuple[Credentials, str]":
        """With one key more, and that key, which nobody can read again. Raises CredentialsError."""
        _check_name(name)
        if name in self.keys:
            raise CredentialsError(f"there is a key {name!r} already; remove it first")
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        changed = replace(self, keys={**self.keys, name: hash_key(key.encode())})
        return changed.with_key_allowance(name, allowance or Allowance()), key

    def with_user_allowance(self, name: str, allowance: Allowance) -> "Credentials":
        """With another allowance for a user. Raises CredentialsError."""
        _get(self.users, name, "user")
        return replace(self, user_allowances=_with_allowance(self.user_allowances, name, allowance))

    def with_key_allowance(self, name: str, allowance: Allowance) -> "Credentials":
        """With another allowance for a key. Raises CredentialsError."""
        _get(self.keys, name, "key")
        return replace(self, key_allowances=_with_allowance(self.key_allowances, name, allowance))

    def without_user(self, name: str) -> "Credentials":
        """With one user less. Raises CredentialsError."""
        _get(self.users, name, "user")
        return replace(self, users=_without(self.users, name), user_allowances=_without(self.user_allowances, name))

    def without_key(self, name: str) -> "Credentials":
        """With one key less. Raises CredentialsError."""
        _get(self.keys, name, "key")
        return replace(self, keys=_without(self.keys, name), key_allowances=_without(self.key_allowances, name))

    def joined(self, other: "Credentials") -> "Credentials":
        """With those of another, which count where both have a name."""
        return Credentials(
            users={**self.users, **other.users},
            keys={**self.keys, **other.keys},
            user_allowances={**_besides(self.user_allowances, other.users), **other.user_allowances},
            key_allowances={**_besides(self.key_allowances, other.keys), **other.key_allowances},
        )

    def user_allowance(self, name: str) -> Allowance:
        """What a user may do."""
        return self.user_allowances.get(name, Allowance())

    def key_allowance(self, name: str) -> Allowance:
        """What a key may do."""
        return self.key_allowances.get(name, Allowance())

    def find_key(self, key: bytes) -> str | None:
        """The name of a key, None if it is not among them; every one is compared in full."""
        digest = hash_key(key)
        matches = [name for name, known in self.keys.items() if secrets.compare_digest(digest, known)]
        return matches[0] if matches else None


def hash_key(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


def read(path: Path) -> Credentials:
    """The users and keys of a file. Raises CredentialsError, which names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise CredentialsError(f"credentials file {path}: {reason}") from None
    return parse(text, f"credentials file {path}, line")


def parse(text: str, place: str) -> Credentials:
    """The users and keys of some lines. Raises CredentialsError, which names the place and the line's number."""
    found = Credentials()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found = found.joined(_read_line(line))
        except ValueError:
            raise CredentialsError(f"{place} {number} cannot be read") from None
    return found


def write(path: Path, credentials: Credentials) -> None:
    """Replace the file at once; only its owner may read it."""
    users = [("user", name, str(kept), credentials.user_allowance(name)) for name, kept in credentials.users.items()]
    keys = [
        ("key", name, f"sha256:{digest.hex()}", credentials.key_allowance(name))
        for name, digest in credentials.keys.items()
    ]
    lines = [" ".join(filter(None, map(str, entry))) + "\n" for entry in (*users, *keys)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:  # has mode 0600
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _read_line(line: str) -> Credentials:
    kind, name, kept, *words = line.split()
    allowances = {name: parse_allowance(words)} if words else {}
    if kind == "user":
        return Credentials(users={name: PasswordHash.parse(kept)}, user_allowances=allowances)
    if kind == "key" and kept.startswith("sha256:") and len(kept) == len("sha256:") + 64:
        return Credentials(keys={name: bytes.fromhex(kept.removeprefix("sha256:"))}, key_allowances=allowances)
    raise ValueError("neither a user nor a key")


def _get(named: Mapping[str, T], name: str, kind: str) -> T:
    if name not in named:
        raise CredentialsError(f"there is no {kind} {name[:64]!r}")
    return named[name]


def _with_allowance(known: Mapping[str, Allowance], name: str, allowance: Allowance) -> dict[str, Allowance]:
    return _without(known, name) | ({name: allowance} if allowance != Allowance() else {})


def _without(named: Mapping[str, T], name: str) -> dict[str, T]:
    return {known: value for known, value in named.items() if known != name}


def _besides(named: Mapping[str, T], others: Mapping[str, object]) -> dict[str, T]:
    return {known: value for known, value in named.items() if known not in others}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CredentialsError(
            f"{name[:80]!r} is not a name: up to 64 characters without blanks and colons, and no # at the beginning"
        )
