"""What a change of adapters is taken to cost."""

from darkroom.engine.merges import GUESS_S, REMEMBERED, Merges


def test_a_network_has_no_adapters_in_it_at_first() -> None:
    merges = Merges()
    assert merges.merge_s("unet", ()) == 0
    assert merges.merge_s("unet", ("one",)) == GUESS_S


def test_what_was_measured_counts_for_its_set_and_for_unknown_ones() -> None:
    merges = Merges()
    merges.note("unet", ("one",), 3.0)
    merges.note("unet", (), 1.0)
    assert [merges.merge_s("unet", adapters) for adapters in ((), ("one",), ("two",))] == [0, 3.0, 1.0]
    assert merges.merge_s("text", ("one",)) == GUESS_S


def test_using_what_is_there_measures_nothing() -> None:
    merges = Merges()
    merges.note("unet", ("one",), 3.0)
    merges.note("unet", ("one",), 0.0)
    merges.forget("unet")
    assert merges.merge_s("unet", ("one",)) == 3.0
    assert merges.merge_s("unet", ()) == 0


def test_only_so_many_sets_are_remembered() -> None:
    merges = Merges()
    for number in range(REMEMBERED + 1):
        merges.note("unet", (number,), 10.0 + number)
    merges.note("unet", (), 1.0)
    assert merges.merge_s("unet", (0,)) == 1.0
    assert merges.merge_s("unet", (REMEMBERED,)) == 10.0 + REMEMBERED
