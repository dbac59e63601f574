"""Pictures as files: folders made when they are needed, running numbers, nothing half-written. Knows no request."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

_TRIES = 500


def save(
    data: bytes,
    folder: Path,
    *,
    decoration: str,
    extension: str,
    basename: str = "",
    digits: int = 5,
    numbered: bool = True,
    replace: bool = True,
) -> Path:
    """Write a picture to `folder/[<basename>-]<number>[-<decoration>].<extension>` and give its path.

    The number is one above the highest in the folder. Without one a file of the same name is replaced, or, where
    `replace` is false, the new one gets a number behind its name. Raises OSError.
    """
    with _draft(data, folder) as draft:
        if not numbered and decoration and replace:
            return draft.rename(folder / f"{decoration}.{extension}")
        stems = (
            _numbered_stems(folder, decoration, basename, digits)
            if numbered or not decoration
            else _suffixed_stems(decoration)
        )
        for stem in islice(stems, _TRIES):
            path = folder / f"{stem}.{extension}"
            # A link fails where the name is taken, so two requests can never write the same file.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
                return path
        raise FileExistsError(f"{folder}: {_TRIES} names are taken")


def keep(data: bytes, folder: Path, name: str) -> None:
    """Write a file under a name that stands for its content; one that is there is left alone. Raises OSError."""
    path = folder / name
    if not path.exists():
        write(data, path)


def write(data: bytes, path: Path) -> None:
    """Write a file in one step, in place of what has its name. Raises OSError."""
    with _draft(data, path.parent) as draft:
        draft.replace(path)


@contextlib.contextmanager
def _draft(data: bytes, folder: Path) -> Iterator[Path]:
    """The data under a name of its own, which is gone afterwards, also where there was no room for all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".save-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _numbered_stems(folder: Path, decoration: str, basename: str, digits: int) -> Iterator[str]:
    head = f"{basename}-" if basename else ""
    tail = f"-{decoration}" if decoration else ""
    return (f"{head}{number:0{digits}}{tail}" for number in count(_next_number(folder, head)))


def _suffixed_stems(decoration: str) -> Iterator[str]:
    yield decoration
    yield from (f"{decoration}-{number}" for number in count(1))


def _next_number(folder: Path, head: str) -> int:
    pattern = re.compile(re.escape(head) + r"(\d{1,18})(?:-|\.)")
    matches = (pattern.match(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=-1) + 1
