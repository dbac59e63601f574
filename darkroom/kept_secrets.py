"""Secrets that the operator gives, or that are made once and kept in the data folder. Knows not what they are for."""

from pathlib import Path

from pydantic import SecretStr


def kept_secret(given: SecretStr, path: Path, fresh: bytes) -> bytes:
    """A secret: the operator's, or the one that was made for this data folder; `fresh` if there is none yet.

    Raises OSError.
    """
    if given.get_secret_value():
        return given.get_secret_value().encode()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return _keep(path, fresh)


def _keep(path: Path, fresh: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_bytes(fresh)
    try:
        path.hardlink_to(part)  # the first of several servers wins
    except FileExistsError:
        return path.read_bytes()
    finally:
        part.unlink(missing_ok=True)
    return fresh
