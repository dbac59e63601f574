"""Keeps the C allocator from handing memory back to the kernel between two evaluations, and makes it do so when models
were dropped. Knows glibc only.

By default every large tensor is mapped and unmapped anew, and each of its pages faults in again: over a third of the
CPU time of a small network's batch on two cores went there (user + system 2.9 s against 1.8 s for the same decodes).
"""

import ctypes
import platform
import time
from collections.abc import Callable
from mmap import PAGESIZE
from pathlib import Path
from typing import Final

LEAST_S: Final = 5.0
"""Freed memory is handed back no more often than this, and no less often than `REFAULTING` allows. Pieces that live
long come to lie among those that do not (torch's kernels are made anew for each size of pictures and batches), and
without it the heap grows for an hour.
"""

REFAULTING: Final = 0.01
"""At most so much of the time goes into getting again what was handed back."""

REFAULT_S_PER_BYTE: Final = 0.25e-9

# Parameters of mallopt(3), and what they are set to.
_KEEP_FREED_MEMORY = (
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: free space at the top of the heap stays
    (-2, 256 << 20),  # M_TOP_PAD: the heap grows in large pieces
    (-3, 1 << 30),  # M_MMAP_THRESHOLD: tensors come from the heap, not from mappings of their own
    (-8, 1),  # M_ARENA_MAX: all share the one heap that can grow freely; others consist of pieces of 64 MiB
)


def keep_freed_memory() -> bool:
    """Tune the allocator of this process; False where it is not glibc and nothing was done."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) for parameter, value in _KEEP_FREED_MEMORY)


def return_freed_memory() -> bool:
    """Hand all free pages back to the kernel, also those amid what is used; False where it is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def private_bytes() -> int:
    """What this process has in main memory, but for mapped files; 0 where the system does not tell as Linux does."""
    try:
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    except OSError:
        return 0
    return (resident - shared) * PAGESIZE


class Returning:
    """Has freed memory handed back now and then, as long as there is work that frees some."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        held: Callable[[], int] = private_bytes,
        give_back: Callable[[], object] = return_freed_memory,
    ) -> None:
        self._clock = clock
        self._held = held
        self._give_back = give_back
        self._due_s = clock() + LEAST_S
        self._worked = False

    def work(self) -> None:
        """Something was worked, and memory freed."""
        self._worked = True

    def tidy(self) -> float | None:
        """Hand it back if it is time. In how many seconds that will be; None if there is nothing to hand back."""
        if not self._worked:
            return None
        left_s = self._due_s - self._clock()
        if left_s > 0:
            return left_s
        before = self._held()
        self._give_back()
        returned = before - self._held()
        self._due_s = self._clock() + max(LEAST_S, returned * REFAULT_S_PER_BYTE / REFAULTING)
        self._worked = False
        return None
