"""The one place where options change, and the file in which they outlive the process. Knows no option."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from darkroom.errors import BadRequest, DarkroomError
from darkroom.options.kinds import Value
from darkroom.options.table import TABLE
from darkroom.options.values import OptionValues, read_value

log = logging.getLogger(__name__)


class OptionsNotKept(DarkroomError):
    """The file of options cannot be written: the disk is full, or the folder may not be written to."""

    http_status = 503
    code = "options_not_kept"


class Options:
    """Jobs take snapshots; every change is on disk before it is acknowledged."""

    def __init__(self, file: Path | None = None, started_with: Mapping[str, object] | None = None) -> None:
        """`started_with` are options that a flag decides, whatever the file says."""
        self._file = file
        self._lock = Lock()
        stored = _read_file(file) if file else {}
        self._values = OptionValues(_read_options(stored)).merged(started_with or {})
        self._others = {name: value for name, value in stored.items() if name not in TABLE}

    def snapshot(self) -> OptionValues:
        """The options now; the value never changes afterwards."""
        return self._values

    def update(self, changes: Mapping[str, object]) -> None:
        """Take all changes or none, and write them to disk, which takes a while. Raises BadRequest, OptionsNotKept."""
        with self._lock:
            values = self._values.merged(changes)
            if self._file:
                try:
                    _replace_file(self._file, values.as_json() | self._others)
                except OSError as error:
                    raise OptionsNotKept(f"{self._file.name} cannot be written: {error.strerror or error}") from error
            self._values = values


def _read_file(file: Path) -> dict[str, Any]:
    """What the file says; nothing if it is not there or damaged."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        log.warning("%s holds no JSON object: options begin with their defaults", file)
        return {}
    return stored


def _read_options(stored: Mapping[str, object]) -> dict[str, Value]:
    """The options in a file: one bad entry must not cost the others."""
    values: dict[str, Value] = {}
    for name in TABLE.keys() & stored.keys():
        try:
            values[name] = read_value(name, stored[name])
        except BadRequest as error:
            log.warning("%s; the default counts", error)
    return values


def _replace_file(file: Path, content: Mapping[str, object]) -> None:
    """Replace the file in one step, so that a crash leaves the old or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=4, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
