"""The allocator really keeps its pages: measured in page faults, in a process of its own."""

import platform
import subprocess
import sys
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap

import pytest

from darkroom.engine.allocator import LEAST_S, Returning, private_bytes

PROGRAM = """
import resource, sys
if sys.argv[1] == "keep":
    from darkroom.engine.allocator import keep_freed_memory
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(64 << 20)
before = faults()
for _ in range(10):
    bytearray(64 << 20)[::4096] = bytes(16384)
print(faults() - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is tuned")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    assert page_faults("keep") < page_faults("default") / 10


class Heap:
    """A clock, and a process that has freed so many bytes whenever it is asked to hand them back."""

    def __init__(self, freed: int) -> None:
        self.now = 0.0
        self.held = self.freed = freed
        self.given: list[float] = []
        self.returning = Returning(clock=lambda: self.now, held=lambda: self.held, give_back=self._give_back)

    def _give_back(self) -> None:
        self.given.append(self.now)
        self.held -= self.freed

    def work_for(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.held = self.freed
            self.returning.work()
            self.returning.tidy()


def test_freed_memory_is_handed_back_every_few_seconds_where_that_is_cheap() -> None:
    heap = Heap(freed=100 << 20)
    heap.work_for(21)
    assert heap.given == [5, 10, 15, 20]


def test_much_memory_is_handed_back_so_seldom_that_getting_it_again_takes_a_hundredth_of_the_time() -> None:
    heap = Heap(freed=2_000_000_000)
    heap.work_for(120)
    assert heap.given == [5, 55, 105]


def test_nothing_is_handed_back_without_work() -> None:
    heap = Heap(freed=1000)
    heap.now = 100
    assert heap.returning.tidy() is None
    heap.returning.work()
    assert heap.returning.tidy() is None
    heap.now += 1
    assert heap.returning.tidy() is None
    heap.returning.work()
    assert heap.returning.tidy() == LEAST_S - 1
    assert heap.given == [100]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it so")
def test_a_process_knows_its_own_memory() -> None:
    before = private_bytes()
    kept = mmap(-1, 64 << 20, MAP_PRIVATE | MAP_ANONYMOUS)  # pages of its own, whatever the heap has free
    for place in range(0, len(kept), PAGESIZE):
        kept[place] = 1
    assert 60 << 20 <= private_bytes() - before <= 80 << 20
