"""What an extension is, and finding those that are installed: packages with an entry point `darkroom.extensions`.

Knows packages and what they bring. Knows nothing of requests: what is loaded is the operator's choice alone, made by
installing a package and by two settings.
"""

import json
import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from fastapi import APIRouter, FastAPI

from darkroom.scripts.plan import Script
from darkroom.scripts.registry import Registry
from darkroom.scripts.signature import Lists, describe

log = logging.getLogger(__name__)

GROUP = "darkroom.extensions"
PREFIX = "/ext/"
"""Where the routes of extensions lie, each one's below its name."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class ExtensionRefused(Exception):
    """An installed package that is no extension, or clashes with another. No request ever sees it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extension:
    """What a package brings. Its entry point has the same `name`: small letters, digits and single hyphens.

    Titles of scripts are new to the server. The routes of `routers` appear below `/ext/NAME`, behind the same passwords
    as all others.
    """

    name: str
    version: str
    scripts: tuple[Script, ...] = ()
    routers: tuple[APIRouter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Installed:
    """An installed extension; `extension` is None where it is switched off or could not be used."""

    name: str
    version: str
    extension: Extension | None = None


def load(without: Collection[str] = (), *, enabled: bool = True) -> tuple[Installed, ...]:
    """Find and import the installed extensions, by name. Whatever is wrong with one is logged, and it stays off.

    Nothing is imported of those named in `without`, and of none at all where they are not `enabled`.
    """
    found: list[Installed] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        off = not enabled or entry.name in without
        extension = None if off else _load_one(entry, [one.extension for one in found if one.extension])
        version = extension.version if extension else _version(entry)
        found.append(Installed(name=entry.name, version=version, extension=extension))
    for name in sorted(set(without) - {one.name for one in found}):
        log.warning("Extension %s is to be left out and is not installed", name)
    return tuple(found)


def registry(extensions: Iterable[Extension]) -> Registry:
    """The scripts of a server: its own, then those of extensions."""
    own = Registry()
    added = [script for extension in extensions for script in extension.scripts]
    return Registry(scripts=(*own.scripts, *added), parts=own.parts)


def add_routes(app: FastAPI, extensions: Iterable[Extension]) -> None:
    """Put the routes of extensions below their names."""
    for extension in extensions:
        for router in extension.routers:
            app.include_router(router, prefix=PREFIX + extension.name, tags=[f"extension {extension.name}"])


def _load_one(entry: EntryPoint, others: Collection[Extension]) -> Extension | None:
    """The extension of an entry point. A boundary: code of strangers must not keep the server from starting."""
    try:
        extension = entry.load()
        _check(entry, extension, others)
    except ExtensionRefused as error:
        log.error("Extension %s is left out: %s", entry.name, error)
        return None
    except (Exception, SystemExit):
        log.exception("Extension %s is left out: it cannot be loaded from %s", entry.name, entry.value)
        return None
    log.info("Extension %s %s", entry.name, extension.version)
    return extension  # type: ignore[no-any-return]


def _version(entry: EntryPoint) -> str:
    """The version of the package that an entry point stands in."""
    return entry.dist.version if entry.dist else ""


def _check(entry: EntryPoint, extension: object, others: Collection[Extension]) -> None:
    """Refuse what could not be served. Raises ExtensionRefused, and whatever its declarations fail with."""
    if not isinstance(extension, Extension):
        raise ExtensionRefused(f"{entry.value} is a {type(extension).__name__}, not a darkroom.extensions.Extension")
    if extension.name != entry.name or not _NAME.fullmatch(entry.name):
        allowed = "the same name of small letters, digits and single hyphens"
        raise ExtensionRefused(
            f"the entry point {entry.name!r} and the extension {extension.name!r} must have {allowed}"
        )
    if any(other.name == extension.name for other in others):
        raise ExtensionRefused(f"the name {extension.name!r} is taken by another package")
    _check_scripts(extension, registry(others))
    trial = FastAPI()
    add_routes(trial, [extension])
    trial.openapi()  # a route that cannot be described would take the description of all others with it


def _check_scripts(extension: Extension, known: Registry) -> None:
    taken = {"none", *(one.title.lower() for one in known.scripts), *(part.title.lower() for part in known.parts)}
    for script in extension.scripts:
        if script.title.lower() in taken or not script.title.strip():
            raise ExtensionRefused(f"the title {script.title!r} of a script is taken by another")
        taken.add(script.title.lower())
        json.dumps(describe(script.arguments, Lists()))  # as above, for /script-info
