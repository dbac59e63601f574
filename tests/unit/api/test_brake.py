import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.api.brake import BURST, MAX_ADDRESSES, PACE_S, Brake
from darkroom.errors import TooManyAttempts
from tests.clock import Clock


def attempts(brake: Brake, address: str, count: int) -> int:
    """How many of `count` attempts pass."""
    passed = 0
    for _ in range(count):
        try:
            brake.take(address)
            passed += 1
        except TooManyAttempts:
            pass
    return passed


def test_a_burst_passes_and_then_one_for_each_pace() -> None:
    clock = Clock()
    brake = Brake(clock)
    assert attempts(brake, "10.0.0.1", 100) == BURST
    clock.now += PACE_S
    assert attempts(brake, "10.0.0.1", 100) == 1
    clock.now += PACE_S * 1000
    assert attempts(brake, "10.0.0.1", 100) == BURST


@given(st.lists(st.floats(0, 60), max_size=60))
def test_never_more_attempts_than_the_pace_allows(pauses: list[float]) -> None:
    clock = Clock()
    brake = Brake(clock)
    passed = attempts(brake, "10.0.0.1", 1)
    for pause in pauses:
        clock.now += pause
        passed += attempts(brake, "10.0.0.1", 1)
    assert passed <= BURST + (clock.now - 1000.0) / PACE_S + 1e-6


def test_the_wait_that_is_told_is_enough_and_not_too_long() -> None:
    clock = Clock()
    brake = Brake(clock)
    attempts(brake, "a", BURST)
    clock.now += 3.5
    with pytest.raises(TooManyAttempts) as caught:
        brake.take("a")
    wait_s = caught.value.retry_after_s
    assert wait_s <= PACE_S
    clock.now += wait_s
    brake.take("a")


def test_each_address_has_its_own_brake_but_a_network_of_ipv6_has_one() -> None:
    brake = Brake(Clock())
    assert attempts(brake, "10.0.0.1", BURST) == BURST
    assert attempts(brake, "10.0.0.2", BURST) == BURST
    assert attempts(brake, "2001:db8::1", BURST) == BURST
    assert attempts(brake, "2001:db8::2", BURST) == 0
    assert attempts(brake, "2001:db8:0:1::2", BURST) == BURST
    assert attempts(brake, "::ffff:10.0.0.3", BURST) == BURST
    assert attempts(brake, "::ffff:10.0.0.4", BURST) == BURST
    assert attempts(brake, "::ffff:10.0.0.1", BURST) == 0


def test_right_attempts_are_given_back_and_forgotten() -> None:
    brake = Brake(Clock())
    for _ in range(BURST * 5):
        brake.take("10.0.0.1")
        brake.give_back("10.0.0.1")
    assert len(brake) == 0
    attempts(brake, "10.0.0.1", 3)
    brake.take("10.0.0.1")
    brake.give_back("10.0.0.1")
    assert attempts(brake, "10.0.0.1", BURST) == BURST - 3


def test_memory_is_bounded_and_the_last_guesser_is_remembered() -> None:
    brake = Brake(Clock())
    for place in range(MAX_ADDRESSES + 500):
        brake.take(f"host-{place}")
    assert len(brake) == MAX_ADDRESSES
    assert attempts(brake, f"host-{MAX_ADDRESSES + 499}", BURST) == BURST - 1
