"""The allocator really keeps its pages: measured in page faults, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from darkroom.engine.allocator import LOOK_EVERY_S, Returning, private_bytes

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
    """A clock and a process whose memory grows by as much as a test says, and goes back to what it really needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.needed = self.held = 1000
        self.given: list[float] = []
        self.returning = Returning(clock=lambda: self.now, held=lambda: self.held, give_back=self._give_back)

    def _give_back(self) -> None:
        self.given.append(self.now)
        self.held = self.needed

    def work(self, held: int) -> None:
        self.now += LOOK_EVERY_S
        self.held = held
        self.returning.work()
        assert self.returning.tidy() is None


def test_freed_memory_is_handed_back_where_there_is_a_tenth_more_than_was_left() -> None:
    heap = Heap()
    heap.work(1200)  # nothing is known of what is needed
    heap.work(1090)
    heap.work(1110)
    assert heap.given == [LOOK_EVERY_S, 3 * LOOK_EVERY_S]


def test_less_memory_that_is_needed_makes_less_of_it_worth_handing_back() -> None:
    heap = Heap()
    heap.work(1000)
    heap.needed = 500
    heap.work(500)  # a model was dropped
    heap.work(560)
    assert heap.given == [LOOK_EVERY_S, 3 * LOOK_EVERY_S]


def test_nothing_is_looked_at_too_soon_or_without_work() -> None:
    heap = Heap()
    heap.now, heap.held = 9 * LOOK_EVERY_S, 2000
    assert heap.returning.tidy() is None
    assert not heap.given
    heap.work(2000)
    heap.now += 0.25 * LOOK_EVERY_S
    heap.returning.work()
    assert heap.returning.tidy() == 0.75 * LOOK_EVERY_S


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it so")
def test_a_process_knows_its_own_memory() -> None:
    before = private_bytes()
    kept = bytearray(64 << 20)
    kept[::4096] = bytes(len(kept) // 4096)
    assert 60 << 20 <= private_bytes() - before <= 80 << 20
