"""One download from what was asked for to a model in its place, as `darkroom models pull` does it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.pull import hub, places
from darkroom.pull.errors import PullError
from darkroom.pull.transfer import Arrived, Remote, Report, Rules, transfer
from darkroom.settings import Settings

Watch = Callable[[str, int | None], Report]
"""Told of each file by its name and its bytes if they are known; gives what is to be told how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be downloaded: `source` is a repository or an address, `files` are of the repository.

    `to` is the name of a kind of model or a folder; empty: by what the file holds.
    """

    source: str
    files: Sequence[str] = ()
    to: str = ""
    name: str = ""
    revision: str | None = None
    variant: str = ""
    diffusers: bool = False
    sha256: str | None = None
    token: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A file in its place; `fresh` unless it had been there before."""

    path: Path
    sha256: str
    fresh: bool


async def pull(order: Order, settings: Settings, rules: Rules, watch: Watch) -> list[Pulled]:
    """Do it. Raises PullError, BadModelFile."""
    downloads = settings.data_dir / "downloads"
    address = hub.find_in_address(order.source)
    if address:
        name, revision, file = address
        return await _from_hub(order, name, revision, [file], settings, rules, watch)
    if order.source.startswith(("http://", "https://")):
        if order.files:
            raise PullError("--file is of a repository; an address is of one file")
        return [await _from_address(order, settings, rules, watch, downloads)]
    if not hub.is_repo_name(order.source):
        raise PullError(f"{order.source[:80]!r} is neither owner/name of a repository nor an address")
    name, _, revision = order.source.partition("@")
    return await _from_hub(order, name, order.revision or revision or None, order.files, settings, rules, watch)


async def _from_address(order: Order, settings: Settings, rules: Rules, watch: Watch, downloads: Path) -> Pulled:
    headers = {"authorization": f"Bearer {order.token}"} if order.token else {}
    remote = Remote(address=order.source, sha256=order.sha256, headers=headers)
    part = _part(downloads, order.source)
    arrived = await transfer(remote, part, rules, watch(order.name or "download", None))
    return _place(order, part, arrived, order.name or arrived.name or "", settings)


async def _from_hub(
    order: Order,
    name: str,
    revision: str | None,
    wanted: Sequence[str],
    settings: Settings,
    rules: Rules,
    watch: Watch,
) -> list[Pulled]:
    repo = hub.read_repo(name, revision, order.token)
    choice = hub.choose(repo, wanted, variant=order.variant, diffusers=order.diffusers)
    _check_order(order, choice)
    if sum(file.size or 0 for file in choice.files) > rules.max_bytes:
        raise PullError(f"{name}: more than {rules.max_bytes} bytes; --max-gb permits more")
    arrived = []
    for file in choice.files:
        part = _part(settings.data_dir / "downloads", f"{name}/{file.path}@{file.sha256 or file.blob or repo.commit}")
        whole = await transfer(hub.remote(repo, file, order.token), part, rules, watch(file.path, file.size))
        _check_hash(order, file.path, part, whole)
        arrived.append((file.path, part, whole))
    if choice.folder:
        return _place_folder(order, arrived, _folder_for(order, name, settings))
    return [_place(order, part, whole, order.name or path, settings) for path, part, whole in arrived]


def _check_hash(order: Order, path: str, part: Path, whole: Arrived) -> None:
    if order.sha256 and whole.sha256 != order.sha256.lower():
        part.unlink(missing_ok=True)
        raise PullError(f"{path}: its hash is {whole.sha256}, not {order.sha256}; it was deleted")


def _check_order(order: Order, choice: hub.Choice) -> None:
    if len(choice.files) > 1 and order.sha256:
        raise PullError("--sha256 is of one file; those of a repository are held against the hub's own hashes")
    if len(choice.files) > 1 and order.name and not choice.folder:
        raise PullError("--name is of one file")


def _folder_for(order: Order, repo: str, settings: Settings) -> Path:
    """The folder that a model in diffusers' layout becomes."""
    known = places.folders(settings)
    parent = known.get(order.to or "checkpoint", Path(order.to))
    name = Path(places.safe_name(f"{order.name or repo.rsplit('/', maxsplit=1)[-1]}.json")).stem
    return parent / name


def _place(order: Order, part: Path, arrived: Arrived, name: str, settings: Settings) -> Pulled:
    """Put one file where such files are looked for."""
    name = places.safe_name(name)
    places.check_model(part, name)
    folder = places.folder_for(part, order.to, places.folders(settings))
    [pulled] = _put([(part, folder / name, arrived)], overwrite=order.overwrite)
    return pulled


def _place_folder(order: Order, arrived: Sequence[tuple[str, Path, Arrived]], folder: Path) -> list[Pulled]:
    """Put all files of a model in diffusers' layout into its folder, all or none."""
    for path, part, _ in arrived:
        places.check_model(part, path)
    return _put([(part, folder / path, whole) for path, part, whole in arrived], overwrite=order.overwrite)


def _put(files: Sequence[tuple[Path, Path, Arrived]], *, overwrite: bool) -> list[Pulled]:
    there = [places.is_there(target, whole.sha256, overwrite=overwrite) for _, target, whole in files]
    places.put([(part, target) for (part, target, _), known in zip(files, there, strict=True) if not known])
    for part, _, _ in files:
        part.unlink(missing_ok=True)
    return [
        Pulled(path=target, sha256=whole.sha256, fresh=not known)
        for (_, target, whole), known in zip(files, there, strict=True)
    ]


def _part(folder: Path, what: str) -> Path:
    """Where the bytes of a download gather, from one attempt to the next."""
    return folder / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.part"
