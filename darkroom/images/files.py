"""Output folders: a dated folder per day, a running number and the seed in each name. Knows nothing of requests."""

import contextlib
import os
import re
import tempfile
from datetime import datetime
from pathlib import Path

_TRIES = 500


def save(data: bytes, folder: Path, *, decoration: str, extension: str, basename: str = "", digits: int = 5) -> Path:
    """Write a picture to `folder/<date>/[<basename>-]<number>[-<decoration>].<extension>` and give its path.

    The number is one above the highest in the folder. Raises OSError.
    """
    folder = folder / datetime.now().astimezone().strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    head = f"{basename}-" if basename else ""
    tail = f"-{decoration}" if decoration else ""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".save-", delete=False) as draft:
        draft.write(data)
    try:
        Path(draft.name).chmod(0o644)
        first = _next_number(folder, head)
        for number in range(first, first + _TRIES):
            path = folder / f"{head}{number:0{digits}}{tail}.{extension}"
            # A link fails where the name is taken, so two requests can never write the same file.
            with contextlib.suppress(FileExistsError):
                os.link(draft.name, path)
                return path
        raise FileExistsError(f"{folder}: {_TRIES} names from number {first} are taken")
    finally:
        Path(draft.name).unlink()


def keep(data: bytes, folder: Path, name: str) -> None:
    """Write a file under a name that stands for its content; one that is there is left alone. Raises OSError."""
    path = folder / name
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".save-", delete=False) as draft:
        draft.write(data)
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(path)


def _next_number(folder: Path, head: str) -> int:
    pattern = re.compile(re.escape(head) + r"(\d+)(?:-|\.)")
    matches = (pattern.match(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=-1) + 1
