"""`/internal/sysinfo` and its neighbours: what a person needs to know about an installation to help with it.

Shows no password, no key and nothing of the environment but Darkroom's own names.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response

import darkroom
from darkroom.api.context import Context, Shared
from darkroom.extensions import Installed
from darkroom.options.table import TABLE
from darkroom.settings import ENV_PREFIX

router = APIRouter(prefix="/internal", tags=["server"])

_PLACEHOLDER = "DARKROOM"
_HIDDEN = "<hidden>"
_TELLTALES = ("auth", "token", "secret", "password")
"""What is in the name of a setting whose value is nobody else's business."""


@router.get("/quicksettings-hint", operation_id="get_quicksettings_hint_internal_quicksettings_hint_get")
def quicksettings_hint() -> list[dict[str, str]]:
    """Every option with a label that people can read."""
    return [{"name": name, "label": option.about} for name, option in TABLE.items()]


@router.get("/profile-startup", operation_id="get_profile_startup_internal_profile_startup_get")
def profile_startup() -> None:
    """A1111: null until a profile of the start exists. None is kept here."""


@router.get("/sysinfo", operation_id="download_sysinfo_internal_sysinfo_get")
def sysinfo(
    context: Shared, attachment: Annotated[str, Query(description="Anything: have the text saved as a file.")] = ""
) -> Response:
    """The installation as JSON text."""
    return _as_file(context, "attachment" if attachment else "inline")


@router.get("/sysinfo-download", operation_id="download_sysinfo_attachment_internal_sysinfo_download_get")
def sysinfo_download(context: Shared) -> Response:
    """The installation as JSON text, to be saved as a file."""
    return _as_file(context, "attachment")


def _as_file(context: Context, disposition: str) -> Response:
    name = datetime.now(UTC).strftime("sysinfo-%Y-%m-%d-%H-%M.json")
    headers = {"Content-Disposition": f'{disposition}; filename="{name}"'}
    return Response(describe(context), media_type="text/plain; charset=utf-8", headers=headers)


def describe(context: Context) -> str:
    """The whole text. `Checksum` is the SHA-256 of the text with a placeholder in its place."""
    draft = json.dumps(_facts(context), indent=4, ensure_ascii=False)
    checksum = hashlib.sha256(draft.encode()).hexdigest()
    return draft.replace(f'"Checksum": "{_PLACEHOLDER}"', f'"Checksum": "{checksum}"', 1)


def _facts(context: Context) -> dict[str, object]:
    root = Path(darkroom.__file__).parent
    return {
        "Platform": platform.platform(),
        "Python": platform.python_version(),
        "Version": darkroom.__version__,
        "Commit": None,
        "Git status": None,
        "Script path": str(root),
        "Data path": str(context.settings.data_dir.absolute()),
        "Extensions dir": None,
        "Checksum": _PLACEHOLDER,
        "Commandline": without_secrets(sys.argv),
        "Torch env info": {"torch": _version("torch")},
        "Exceptions": [],
        "CPU": {"model": platform.processor(), "count logical": os.cpu_count()},
        "RAM": None,
        "Extensions": [_described(one) for one in context.extensions if one.extension],
        "Inactive extensions": [_described(one) for one in context.extensions if not one.extension],
        "Environment": _environment(os.environ),
        "Config": context.options.snapshot().as_json(),
        "Startup": None,
        "Packages": sorted({f"{found.name}=={found.version}" for found in importlib.metadata.distributions()}),
    }


def without_secrets(arguments: list[str]) -> list[str]:
    """A command line in which what follows, or belongs to, a flag about authentication is hidden."""
    shown: list[str] = []
    hides_next = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        is_secret = flag.startswith("--") and _is_secret(flag)
        hidden = hides_next and not argument.startswith("--")
        shown.append(f"{flag}={_HIDDEN}" if is_secret and equals else _HIDDEN if hidden else argument)
        hides_next = is_secret and not equals
    return shown


def _is_secret(name: str) -> bool:
    return any(telltale in name for telltale in _TELLTALES)


def _described(one: Installed) -> dict[str, object]:
    """An extension as A1111 lists its own, which are folders of git."""
    return {"name": one.name, "path": None, "version": one.version, "branch": None, "remote": None}


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in sorted(variables.items()) if name.startswith(ENV_PREFIX)}
    return {name: _HIDDEN if _is_secret(name.lower()) else value for name, value in own.items()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
