import pytest

from darkroom.errors import Frozen
from darkroom.options.freezing import SECTION_NAMES, Freezing, read_names, read_sections
from darkroom.options.table import SECTIONS, TABLE
from darkroom.options.values import OptionValues

PRESENT = OptionValues()
CHANGES: dict[str, object] = {"jpeg_quality": 5, "sd_vae": "None", "canvas_hotkey_move": "X"}


def refused(freezing: Freezing, *names: str) -> bool:
    try:
        freezing.check(PRESENT, PRESENT.merged({name: CHANGES[name] for name in names}))
    except Frozen:
        return True
    return False


def test_what_is_not_frozen_may_change() -> None:
    assert not refused(Freezing(), *CHANGES)


def test_what_stays_as_it_is_may_be_sent_back() -> None:
    assert not refused(Freezing(everything=True))
    assert refused(Freezing(everything=True), "jpeg_quality")


@pytest.mark.parametrize("name", CHANGES)
def test_one_option_may_be_frozen_and_no_other(name: str) -> None:
    freezing = Freezing(names=read_names(f" {name},"))
    assert refused(freezing, name)
    assert not refused(freezing, *(set(CHANGES) - {name}))


def test_a_section_may_be_frozen_by_the_name_of_the_original() -> None:
    freezing = Freezing(sections=read_sections("vae, canvas_hotkey"))
    assert refused(freezing, "sd_vae")
    assert refused(freezing, "canvas_hotkey_move")
    assert not refused(freezing, "jpeg_quality")


def test_every_section_has_a_name_and_every_name_freezes_something() -> None:
    for section in SECTION_NAMES:
        freezing = Freezing(sections=read_sections(section))
        assert any(freezing.reason(name) for name in TABLE), section
    assert all(Freezing(sections=frozenset(SECTION_NAMES)).reason(name) for name in TABLE)
    assert len(SECTION_NAMES) < len(SECTIONS)


def test_what_says_why_names_option_and_section() -> None:
    with pytest.raises(Frozen, match=r"'jpeg_quality' because settings in section '.+' \(saving-images\) are frozen"):
        Freezing(sections=read_sections("saving-images")).check(PRESENT, PRESENT.merged({"jpeg_quality": 5}))
