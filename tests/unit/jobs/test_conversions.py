from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.jobs.conversions import first_pass_size, network_hashes, parse_version, rename_networks
from darkroom.jobs.infotext import Reading, read
from darkroom.prompt.styles import Style, apply

OIL = Style(name="oil", prompt="oil painting of {prompt}, thick", negative_prompt="ugly")
SHARP = Style(name="sharp", prompt="4k", negative_prompt="")
LINE = "Steps: 20, Sampler: Euler, Seed: 1, Size: 640x512"


def parsed(text: str, **reading: Any) -> dict[str, object]:
    return read(text, Reading(**reading))


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.5.9", "1.6"),
        ("v1.6.0-RC", "1.6.0"),
        ("v1.7.0", "v1.7.0-225-gabcdef1"),
        ("v1.7.0-224-g1", "v1.7.0-225-gabcdef1"),
        ("v1.7.0-225-g1", "v1.8.0-RC"),
        ("1.9.4", "1.10.1"),
    ],
)
def test_versions_are_ordered(older: str, newer: str) -> None:
    first, second = parse_version(older), parse_version(newer)
    assert first is not None
    assert second is not None
    assert first < second


@pytest.mark.parametrize("text", ["darkroom 1.2", "f0.0.17v1.8.0rc-latest", "", None, "1.x"])
def test_the_versions_of_others_are_none(text: object) -> None:
    assert parse_version(text) is None


@given(st.text())
def test_any_version_can_be_asked(text: str) -> None:
    assert parse_version(text) is None or parse_version(text) == parse_version(text)


@pytest.mark.parametrize(
    ("text", "entry", "value"),
    [
        (f"a [b:5]\n{LINE}, Version: 1.5.1", "Old prompt editing timelines", True),
        ("a\nSteps: 20, Sampler: DDIM, Seed: 1, Version: 1.5.1", "Pad conds v0", True),
        (f"a\n{LINE}, Version: v1.7.0-224-g12", "Downcast alphas_cumprod", True),
        (f"a\n{LINE}, Refiner: x [y], Version: 1.7.0", "Refiner switch by sampling steps", True),
    ],
)
def test_a_text_of_an_old_version_asks_for_its_rules(text: str, entry: str, value: object) -> None:
    assert parsed(text)[entry] == value
    assert parsed(text, compatible=False).get(entry, False) is False


@pytest.mark.parametrize("version", ["", ", Version: v1.10.1", ", Version: darkroom 0.1"])
def test_a_text_of_now_or_of_nobody_asks_for_nothing(version: str) -> None:
    found = parsed(f"a [b:5]\nSteps: 20, Sampler: DDIM, Seed: 1, Refiner: x{version}")
    assert not {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod"} & set(found)
    assert found["Refiner switch by sampling steps"] is False


def test_a_first_pass_size_is_the_size_now() -> None:
    found = parsed(f"a\n{LINE}, First pass size: 512x448")
    assert (found["Size-1"], found["Size-2"]) == (512, 448)
    assert (found["Hires resize-1"], found["Hires resize-2"]) == (640, 512)


def test_a_first_pass_size_of_nothing_was_computed() -> None:
    found = parsed("a\nSteps: 20, Seed: 1, Size: 1024x1024, First pass size: 0x0")
    assert (found["Size-1"], found["Hires resize-1"]) == (512, 1024)
    assert first_pass_size(1024, 512) == (768, 384)


def test_with_the_old_rule_the_size_is_that_of_the_larger_picture() -> None:
    text = f"a\n{LINE}, Hires resize: 1280x1024"
    assert parsed(text, old_hires=True)["Size-1"] == 1280
    assert parsed(text)["Size-1"] == "640"


def test_a_hypernetwork_becomes_a_tag() -> None:
    assert parsed(f"a\n{LINE}, Hypernet: h, Hypernet strength: 0.5")["Prompt"] == "a<hypernet:h:0.5>"
    assert parsed(f"a\n{LINE}, Hypernet: h")["Prompt"] == "a<hypernet:h:1.0>"


@pytest.mark.parametrize(
    ("prompts", "mode"),
    [
        ("a (b)", "Original"),
        ("a\nNegative prompt: (b:1.2)", "Original"),
        ("a b", None),
        ("a BREAK b", None),
        ("a \\(b\\)", None),
    ],
)
def test_emphasis_is_told_where_a_prompt_has_some(prompts: str, mode: str | None) -> None:
    assert parsed(f"{prompts}\n{LINE}").get("Emphasis") == mode


def test_entries_can_be_skipped() -> None:
    found = parsed(f"a\n{LINE}", skip=frozenset({"Seed", "RNG"}))
    assert "Seed" not in found
    assert "RNG" not in found


def test_an_entry_without_a_value_is_none() -> None:
    assert "Sampler" not in parsed("a\nSteps: 20, Sampler: , Seed: 1")


def test_reduced_weights_tell_how_lora_weights_are_kept() -> None:
    assert parsed(f"a\n{LINE}, FP8 weight: Enable")["Cache FP16 weight for LoRA"] is False
    assert "Cache FP16 weight for LoRA" not in parsed(f"a\n{LINE}")


STYLED = f"oil painting of a cat, thick, 4k\nNegative prompt: ugly\n{LINE}"


def test_styles_are_cut_out_and_listed_outermost_last() -> None:
    found = parsed(STYLED, styles=(OIL, SHARP))
    assert (found["Prompt"], found["Negative prompt"], found["Styles array"]) == ("a cat", "", ["oil", "sharp"])


@pytest.mark.parametrize(
    ("use", "prompt", "names"),
    [
        ("Ignore", "oil painting of a cat, thick, 4k", None),
        ("Apply", "a cat", ["oil", "sharp"]),
        ("Discard", "a cat", None),
    ],
)
def test_what_becomes_of_styles_can_be_chosen(use: Any, prompt: str, names: list[str] | None) -> None:
    found = parsed(STYLED, styles=(OIL, SHARP), use_styles=use)
    assert found["Prompt"] == prompt
    assert found.get("Styles array") == names


def test_where_none_is_found_only_apply_makes_a_list() -> None:
    assert "Styles array" not in parsed(f"a\n{LINE}", styles=(OIL,))
    assert parsed(f"a\n{LINE}", styles=(OIL,), use_styles="Apply")["Styles array"] == []


def test_the_second_pass_must_bear_the_same_styles() -> None:
    same = parsed(f'a dog, 4k\n{LINE}, Hires prompt: "a cat, 4k"', styles=(SHARP,))
    assert (same["Prompt"], same["Hires prompt"]) == ("a dog", "a cat")
    other = parsed(f"a dog, 4k\n{LINE}, Hires prompt: a cat", styles=(SHARP,))
    assert (other["Prompt"], other["Hires prompt"]) == ("a dog, 4k", "a cat")
    assert "Styles array" not in other


def test_a_second_pass_of_equal_prompts_needs_none_of_its_own() -> None:
    assert parsed(f'a dog, 4k\n{LINE}, Hires prompt: "a dog, 4k"', styles=(SHARP,))["Hires prompt"] == ""


def test_before_a_certain_version_the_second_pass_had_no_styles() -> None:
    text = f"a dog, 4k\n{LINE}, Hires prompt: a cat, Version: v1.8.0-100-g1"
    assert parsed(text, styles=(SHARP,))["Prompt"] == "a dog"


@given(st.lists(st.sampled_from([OIL, SHARP]), unique=True), st.text("abc de", max_size=9).map(str.strip))
def test_styles_survive_a_text(styles: list[Style], prompt: str) -> None:
    whole = apply(prompt, [style.prompt for style in styles])
    negative = apply("dog", [style.negative_prompt for style in styles])
    found = parsed(f"{whole}\nNegative prompt: {negative}\n{LINE}", styles=(OIL, SHARP))
    again = [style for name in list(found.get("Styles array", [])) for style in styles if style.name == name]  # type: ignore[call-overload]
    assert apply(str(found["Prompt"]), [style.prompt for style in again]) == whole.strip()
    assert apply(str(found["Negative prompt"]), [style.negative_prompt for style in again]) == negative


def test_networks_get_other_names() -> None:
    entries: dict[str, object] = {"Prompt": "a <lora:there:0.5> <lora:other:1> <lora:x>"}
    rename_networks(entries, {"there": "here", "x": "y"})
    assert entries["Prompt"] == "a <lora:here:0.5> <lora:other:1> <lora:y>"


def test_networks_are_known_by_their_hashes() -> None:
    found = parsed(f'a\n{LINE}, Lora hashes: "there: 0123456789ab, other: ffff"')
    assert network_hashes(found) == {"there": "0123456789ab", "other": "ffff"}
    assert network_hashes(parsed(f"a\n{LINE}")) == {}


def test_networks_of_the_old_extension_become_tags() -> None:
    found = parsed(
        f"a\n{LINE}, AddNet Module 1: LoRA, AddNet Model 1: x(012ab), AddNet Weight A 1: 0.5, "
        "AddNet Module 2: LyCORIS, AddNet Model 2: y, AddNet Module 3: LoRA, AddNet Model 3: z"
    )
    rename_networks(found, {})
    assert found["Prompt"] == "a\n<lora:x:0.5><lora:z:1.0>"
