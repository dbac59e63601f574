"""The process: standard input to standard output, with no more than its three descriptors and no way to get another.

Whatever it should try beyond reading and writing them ends it.
"""

import codecs
import io
import os
import resource
import struct
import sys
import zipfile

from darkroom.nets.unpickler.formats import read
from darkroom.nets.unpickler.values import RefusedError
from darkroom.nets.unpickler.writing import layout, numbers, write

MEMORY_BYTES = 3 << 30


def seal(max_bytes: int, size: int) -> None:
    """Give up, for good, whatever reading weights does not need."""
    seconds = 60 + size // (50 << 20)
    limits = {
        resource.RLIMIT_NOFILE: 3,  # nothing can be opened, no file and no socket
        resource.RLIMIT_FSIZE: max_bytes,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (allowed, allowed))
    sys.addaudithook(_end)


def _end(_event: str, _arguments: object) -> None:
    """Reading weights opens, imports, compiles and starts nothing: whatever does ends the process."""
    os._exit(3)


def convert(mode: str, max_bytes: int) -> None:
    """Standard input to standard output. Raises RefusedError and what a damaged file leads to."""
    size = os.fstat(0).st_size
    file = io.BufferedReader(io.FileIO(0, closefd=False))
    codecs.lookup("cp437")  # the character set of old archives, which zipfile asks for later
    seal(max_bytes, size)
    content = read(file, size)
    header, tensors = layout(content.value)
    written = tensors if mode == "tensors" else []
    if len(header) + sum(tensor.nbytes for tensor in written) > max_bytes:
        raise RefusedError(f"its tensors are larger than {max_bytes} bytes")
    write(1, [header])
    for tensor in written:
        write(1, numbers(0, tensor, content.begins[tensor.storage.key]))


DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RecursionError, RuntimeError,
    TypeError, ValueError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def main(mode: str, max_bytes: str) -> int:
    """Convert; say in one line why not."""
    try:
        convert(mode, int(max_bytes))
    except RefusedError as error:
        message = str(error)
    except MemoryError:
        message = "reading it takes too much memory"
    except DAMAGE as error:
        message = f"it is damaged ({type(error).__name__})"
    else:
        return 0
    os.write(2, message.encode("ascii", "replace")[:500])
    return 1
