"""The allocator really keeps its pages: measured in page faults, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from darkroom.engine.allocator import RETURN_EVERY_S, Returning

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


def test_freed_memory_is_handed_back_now_and_then_and_only_after_work() -> None:
    now, given = [0.0], list[float]()
    returning = Returning(clock=lambda: now[0], give_back=lambda: given.append(now[0]))
    assert returning.tidy() is None
    returning.work()
    assert returning.tidy() == RETURN_EVERY_S
    now[0] = RETURN_EVERY_S
    assert returning.tidy() is None
    assert returning.tidy() is None
    now[0] = 1.5 * RETURN_EVERY_S
    returning.work()
    assert returning.tidy() == 0.5 * RETURN_EVERY_S
    now[0] = 9 * RETURN_EVERY_S
    assert returning.tidy() is None
    assert given == [RETURN_EVERY_S, 9 * RETURN_EVERY_S]
