"""What stays in memory: simulated things of any size, a clock of the test's own."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from darkroom.nets.residents import Residents


@dataclass
class Thing:
    nbytes: int


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def filled(residents: Residents, sizes: dict[str, int]) -> dict[str, Thing]:
    """Each used in a turn of its own, in order."""
    things = {key: Thing(size) for key, size in sizes.items()}
    for key, thing in things.items():
        residents.begin_turn()
        residents.add(key, 1, thing)
    return things


def test_the_least_recently_used_goes_first() -> None:
    residents = Residents(10)
    filled(residents, {"a": 4, "b": 4})
    residents.begin_turn()
    residents.find("a")
    residents.begin_turn()
    residents.add("c", 1, Thing(4))
    assert [residents.holds(key) for key in "abc"] == [True, False, True]


def test_what_is_in_use_stays_whatever_the_budget_says() -> None:
    residents = Residents(10)
    filled(residents, {"old": 3})
    residents.begin_turn()
    for key in ("network", "autoencoder"):
        residents.add(key, 1, Thing(9))
    assert [residents.holds(key) for key in ("old", "network", "autoencoder")] == [False, True, True]


def test_room_is_made_before_something_comes() -> None:
    residents = Residents(10)
    filled(residents, {"a": 4, "b": 4})
    residents.begin_turn()
    residents.make_room(5)
    assert (residents.nbytes, residents.holds("b")) == (4, True)


def test_what_grows_pushes_others_out() -> None:
    residents = Residents(10)
    things = filled(residents, {"a": 4, "b": 4})
    things["b"].nbytes = 8
    residents.make_room(0)
    assert [residents.holds(key) for key in "ab"] == [False, True]


def test_another_state_is_not_what_was_asked_for_but_is_kept() -> None:
    residents = Residents(10)
    thing = filled(residents, {"a": 4})["a"]
    assert residents.find("a", 2) is None
    assert residents.find("a", 1) is thing
    assert residents.find("a") is thing
    assert residents.find("b") is None


def test_the_unused_go_after_a_time_and_the_time_of_the_next_is_told() -> None:
    clock = Clock()
    residents = Residents(10, clock=clock)
    assert residents.drop_unused(60) is None
    filled(residents, {"a": 1})
    clock.now_s = 50.0
    filled(residents, {"b": 1})
    assert residents.drop_unused(60) == 10
    clock.now_s = 60.0
    assert residents.drop_unused(60) == 50
    assert [residents.holds(key) for key in "ab"] == [False, True]
    clock.now_s = 200.0
    assert residents.drop_unused(60) is None


def test_whoever_keeps_the_memory_hears_of_every_release() -> None:
    released = list[int]()
    residents = Residents(4, released=lambda: released.append(residents.nbytes))
    residents.clear()
    assert released == []
    filled(residents, {"a": 3, "b": 3})
    residents.drop("nothing")
    residents.clear()
    assert released == [3, 0]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), max_size=40), st.integers(1, 30))
def test_the_budget_is_never_exceeded_by_more_than_what_is_in_use(uses: list[tuple[int, int]], budget: int) -> None:
    residents = Residents(budget)
    for key, size in uses:
        residents.begin_turn()
        thing = residents.find(key)
        if thing is None:
            thing = Thing(size)
            residents.make_room(size)
            assert residents.nbytes <= max(0, budget - size)
            residents.add(key, None, thing)
        assert residents.find(key) is thing
        assert residents.nbytes <= max(budget, thing.nbytes)
