"""The order of pictures in the engine's loop: a runner with closed answers, and a clock that counts them."""

from darkroom.engine.sojourns import OLDEST_SHARE
from tests.unit.engine.fake_runner import make_spec
from tests.unit.engine.test_turns import EVALUATION_S, Device


def test_a_quick_picture_passes_a_long_one_that_came_before() -> None:
    device = Device(max_lanes=8)
    long = device.bring("", "long", spec=make_spec("long", steps=50))
    for _ in range(10):
        device.loop.cycle()
    came_s = device.runner.now
    device.work_until(device.bring("", "quick", spec=make_spec("quick", steps=4)))
    # A text, four steps and a picture; a question of the long one that was under way, and its share.
    assert device.ended["quick"] - came_s <= 9 * EVALUATION_S
    assert not long.ended
    device.work_until(long)


def test_of_long_pictures_the_first_is_not_stretched_by_the_others() -> None:
    device = Device(max_lanes=8)
    jobs = [device.bring("", f"{number}", spec=make_spec(f"{number}", steps=50)) for number in range(4)]
    device.work_until(jobs[-1])
    alone = Device(max_lanes=1)
    alone.work_until(alone.bring("", "0", spec=make_spec("0", steps=50)))
    assert device.ended["0"] <= alone.ended["0"] + 12 * EVALUATION_S
    assert list(device.ended) == ["0", "1", "2", "3"]


def test_a_long_picture_is_done_in_time_among_quick_ones_without_end() -> None:
    device = Device(max_lanes=8)
    long = device.bring("", "long", spec=make_spec("long", steps=30))
    number = 0
    while not long.ended:
        quick = device.bring("", f"quick {number}", spec=make_spec(f"quick {number}", steps=4))
        device.work_until(quick)
        number += 1
    assert device.ended["long"] <= (30 + 3) * EVALUATION_S / OLDEST_SHARE
    assert number > 10, "and many of them were done meanwhile"
