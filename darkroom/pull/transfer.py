"""One file over HTTP: resumed where it stopped, held against its hash, never larger than it may be.

Every connection, also that of a redirect, goes through the guard of `guarded_network`. Knows nothing of models.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, unquote, urljoin, urlsplit

import anyio
import httpcore

from darkroom.guarded_network import GuardedNetwork, NotPublicError
from darkroom.pull.errors import InterruptedPullError, PullError

Report = Callable[[int, int | None], None]
"""Is told how many bytes have arrived, and of how many if that is known."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSALS = MappingProxyType(
    {401: "it asks for a token (HF_TOKEN, --token)", 403: "it is not for you", 404: "there is no such file"}
)
_SAFE = "/:@!$&'()*+,;=-._~%?"
_BLOCK_BYTES = 1 << 20
_SPARE_BYTES = 64 << 20
_MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be connected to and how much may come; it ends after `attempts` on end without a new byte,
    between which the pauses grow from `pause_s` on.
    """

    public_only: bool = True
    max_bytes: int = 100 << 30
    attempts: int = 5
    pause_s: float = 0.5
    silence_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file elsewhere. `blob` is its hash as git computes it, of files too small for another one."""

    address: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A file that is whole: its hash, and what its host calls it, if it does."""

    sha256: str
    name: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    response: httpcore.Response
    said: Mapping[str, str]
    start: int
    total: int | None


class _TryAgainError(Exception):
    """The host is busy, or the transfer broke off."""


async def transfer(remote: Remote, part: Path, rules: Rules, report: Report) -> Arrived:
    """Bring a file into `part`, which holds what came before it broke off, if anything. Raises PullError.

    What is in `part` afterwards is whole and has the hash that it ought to have; else the file is deleted.
    """
    name = await _bring(remote, part, rules, report)
    digest = await anyio.to_thread.run_sync(_checked, remote, part)
    _notes(part).unlink(missing_ok=True)
    return Arrived(sha256=digest, name=name)


async def _bring(remote: Remote, part: Path, rules: Rules, report: Report) -> str | None:
    """All bytes of the file; what its host calls it."""
    tried, reached, reason = 0, _size(part), ""
    if reached and reached == remote.size and (remote.sha256 or remote.blob):
        report(reached, reached)
        return None
    while tried < rules.attempts:
        try:
            async with httpcore.AsyncConnectionPool(
                network_backend=GuardedNetwork(public_only=rules.public_only)
            ) as pool:
                return await _attempt(pool, remote, part, rules, report)
        except NotPublicError:
            raise PullError(
                f"{_shown(remote.address)}: a host that is not on the public network, or not there; --allow-private"
                " permits it"
            ) from None
        except (_TryAgainError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            reason = str(error) or type(error).__name__
        except OSError as error:
            raise PullError(f"{part.name}: cannot be written: {error}") from error
        tried = 1 if _size(part) > reached else tried + 1
        reached = _size(part)
        if tried < rules.attempts:
            await anyio.sleep(rules.pause_s * 2**tried)
    raise InterruptedPullError(
        f"{_shown(remote.address)}: broke off ({reason}); {reached} bytes are kept, and the same command goes on there"
    )


async def _attempt(
    pool: httpcore.AsyncConnectionPool, remote: Remote, part: Path, rules: Rules, report: Report
) -> str | None:
    here, headers = remote.address, {**remote.headers, **_resuming(remote, part)}
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), rules.silence_s)
    for _ in range(_MAX_REDIRECTS + 1):
        url, host = _parse(here)
        sent = {"Host": host, "Accept-Encoding": "identity", "User-Agent": "darkroom"} | headers
        lines = [(name.encode(), value.encode("ascii", "replace")) for name, value in sent.items()]
        async with pool.stream("GET", url, headers=lines, extensions={"timeout": timeouts}) as response:
            said = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and "location" in said:
                there = urljoin(here, said["location"])
                if urlsplit(there)[:2] != urlsplit(here)[:2]:
                    # Who may see the first host's files is none of another one's business.
                    headers.pop("authorization", None)
                here = there
                continue
            await _receive(_answer(response, said, remote, part), remote, part, rules, report)
            return _name_in(said) or _name_of(here)
    raise PullError(f"{_shown(remote.address)}: more than {_MAX_REDIRECTS} redirects")


def _resuming(remote: Remote, part: Path) -> dict[str, str]:
    """The headers that ask for the rest. What is there counts if a hash will tell, or its host knows the version."""
    have = _size(part)
    if not have:
        return {}
    if remote.sha256 or remote.blob:
        return {"Range": f"bytes={have}-"}
    tag = _read_notes(part).get("etag", "")
    return {"Range": f"bytes={have}-", "If-Range": tag} if tag else {}


def _answer(response: httpcore.Response, said: Mapping[str, str], remote: Remote, part: Path) -> _Answer:
    """What an answer brings. Raises PullError, _TryAgainError."""
    status, have = response.status, _size(part)
    if status in _BUSY:
        raise _TryAgainError(f"the host answered {status}")
    length = int(said["content-length"]) if said.get("content-length", "").isdecimal() else None
    if status == 200:
        return _Answer(response, said, 0, length)
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said.get("content-range", ""))
    if status == 206 and found and int(found[1]) == have:
        return _Answer(response, said, have, have + length if length is not None else None)
    if status in {206, 416}:
        if said.get("content-range") == f"bytes */{have}":
            return _Answer(response, said, have, have)
        part.unlink(missing_ok=True)
        raise _TryAgainError("the host has another file now")
    raise PullError(f"{_shown(remote.address)}: {_REFUSALS.get(status, f'the host answered {status}')}")


async def _receive(answer: _Answer, remote: Remote, part: Path, rules: Rules, report: Report) -> None:
    _check_size(answer, remote, part, rules)
    part.parent.mkdir(parents=True, exist_ok=True)
    _write_notes(part, answer.said)
    reached = answer.start
    with part.open("r+b" if reached else "wb") as file:
        file.seek(reached)
        report(reached, answer.total)
        if answer.response.status == 416:
            return
        async for block in answer.response.aiter_stream():
            reached += len(block)
            if reached > min(rules.max_bytes, remote.size or rules.max_bytes):
                raise PullError(f"{_shown(remote.address)}: larger than it may be")
            file.write(block)
            report(reached, answer.total)
    if answer.total is not None and reached < answer.total:
        raise _TryAgainError("the host closed the connection")


def _check_size(answer: _Answer, remote: Remote, part: Path, rules: Rules) -> None:
    """Raise PullError for what is too large, not what was announced, or does not fit the disk."""
    if answer.said.get("content-encoding", "identity") != "identity":
        raise PullError(f"{_shown(remote.address)}: comes compressed, which was not asked for")
    total = answer.total if answer.total is not None else remote.size
    if total is None:
        return
    if remote.size is not None and total != remote.size:
        raise PullError(f"{_shown(remote.address)}: {total} bytes, but it ought to have {remote.size}")
    if total > rules.max_bytes:
        raise PullError(f"{_shown(remote.address)}: {total} bytes, at most {rules.max_bytes} may be (--max-gb)")
    folder = next(folder for folder in part.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if total - answer.start + _SPARE_BYTES > free:
        raise PullError(f"{_shown(remote.address)}: {total} bytes, and {free} are free in {part.parent}")


def _checked(remote: Remote, part: Path) -> str:
    """The hash of the whole file. Raises PullError, and deletes the file, if it is another than it ought to be."""
    whole, blob = hashlib.sha256(), hashlib.sha1(f"blob {_size(part)}\0".encode(), usedforsecurity=False)
    for block in _blocks(part):
        whole.update(block)
        if remote.blob:
            blob.update(block)
    wrong = [
        f"it has {have}, and ought to have {want}"
        for have, want in ((whole.hexdigest(), remote.sha256), (blob.hexdigest(), remote.blob))
        if want and have != want.lower()
    ]
    if wrong:
        part.unlink(missing_ok=True)
        _notes(part).unlink(missing_ok=True)
        raise PullError(f"{_shown(remote.address)}: its hash is wrong, {wrong[0]}; it was deleted")
    return whole.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _parse(address: str) -> tuple[httpcore.URL, str]:
    """The parts of an address, and what its host is to be called. Raises PullError."""
    try:
        parts = urlsplit(address)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except (ValueError, UnicodeError):
        raise PullError(f"{_shown(address)}: no address") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise PullError(f"{_shown(address)}: an address begins with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise PullError("an address with a user name is not taken; --token is sent as a header")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    shown = (f"[{host.decode()}]" if b":" in host else host.decode()) + (f":{port}" if port is not None else "")
    return httpcore.URL(scheme=parts.scheme.encode(), host=host, port=port, target=target.encode()), shown


def _shown(address: str) -> str:
    """An address for a message: without its query, in which secrets may stand."""
    return address.split("?", maxsplit=1)[0][:200]


def _name_in(said: Mapping[str, str]) -> str | None:
    """The file name that a host tells (RFC 6266)."""
    disposition = said.get("content-disposition", "")
    extended = re.search(r"filename\*\s*=\s*utf-8''([^;]+)", disposition, re.IGNORECASE)
    if extended:
        return unquote(extended[1].strip())
    found = re.search(r'filename\s*=\s*(?:"([^"]*)"|([^;]+))', disposition, re.IGNORECASE)
    return (found[1] or found[2] or "").strip() or None if found else None


def _name_of(address: str) -> str | None:
    return unquote(urlsplit(address).path.rsplit("/", 1)[-1]) or None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_notes(part: Path) -> dict[str, str]:
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _write_notes(part: Path, said: Mapping[str, str]) -> None:
    """Keep the version that a host tells; a weak one does not stand for the bytes."""
    tag = said.get("etag", "")
    if tag.startswith('"'):
        _notes(part).write_text(json.dumps({"etag": tag}), encoding="utf-8")
    else:
        _notes(part).unlink(missing_ok=True)
