"""C code of our own (`native/`), compiled on this machine: once per version, in a second, kept in a folder.

Knows nothing of what the code does.
"""

import ctypes
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

Kernel = TypeVar("Kernel")

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-fopenmp")
COMPILING_S = 60.0

FAILURES = (OSError, subprocess.SubprocessError, AttributeError)
"""What `load` raises, and what using what it gave does if that is not what it should be."""


def cache_folder() -> Path:
    """Where compiled code is kept: the XDG base directory specification's folder for what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "darkroom"


def load(name: str, flags: Sequence[str], folder: Path) -> ctypes.CDLL:
    """The library of `native/NAME.c` as it is now, compiled into a folder unless it lies there. Raises `FAILURES`."""
    source, flags = files("darkroom.nets").joinpath(f"native/{name}.c").read_bytes(), (*FLAGS, *flags)
    library = folder / f"{name}-{sha256(source + ' '.join(flags).encode()).hexdigest()[:16]}.so"
    if library.is_file():
        try:
            return ctypes.CDLL(str(library))
        except OSError:
            log.info("%s cannot be loaded, and is compiled anew", library)
    _compile(source, flags, library)
    return ctypes.CDLL(str(library))


def find(doing: str, make: Callable[[], Kernel]) -> Kernel | None:
    """A kernel of our own; None, and a line in the log that says what torch is `doing` then, where that cannot be made
    (`FAILURES`) or is wrong (ArithmeticError).
    """
    try:
        return make()
    except FAILURES as error:
        log.info("%s by torch: the kernel for this processor cannot be had: %s", doing, error)
    except ArithmeticError:
        log.warning("%s by torch: the kernel for this processor does not work here", doing)
    return None


def _compile(source: bytes, flags: Sequence[str], library: Path) -> None:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError(f"there is no C compiler ({', '.join(COMPILERS)})")
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies there is run
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        command = [compiler, *flags, "-x", "c", "-", "-o", str(made)]
        subprocess.run(command, input=source, check=True, capture_output=True, timeout=COMPILING_S)  # noqa: S603
        with made.open("rb") as file:
            os.fsync(file.fileno())  # half a library, as a loss of power leaves it, ends whoever loads it
        made.replace(library)
