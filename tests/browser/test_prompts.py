"""What keys do to a prompt, its length, styles, seeds, and controls filled from an address or a text."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.visit import SMALL, Visit

MODULE = """async ([name, ...values]) => {
  const here = document.querySelector('script[src$="/darkroom.js"]').src;
  const module = await import(new URL("prompt.js", here).href);
  return module[name](...values);
}"""

KEYS = {"attention": 0.1, "extra": 0.05, "delimiters": ".,\\/!?%^*;:{}=`~() "}


def call(visit: Visit, name: str, *values: Any) -> Any:
    return visit.page.evaluate(MODULE, [name, *values])


def test_weights_go_up_and_down_in_steps(visit: Visit) -> None:
    visit.open()
    for text, start, end, up, wanted in (
        ("a red apple", 2, 5, True, "a (red:1.1) apple"),
        ("a red apple", 3, 3, True, "a (red:1.1) apple"),  # the word at the cursor
        ("a red apple", 2, 5, False, "a (red:0.9) apple"),
        ("a (red:1.1) apple", 4, 4, True, "a (red:1.2) apple"),
        ("a (red:1.1) apple", 3, 6, False, "a red apple"),  # a weight of 1 needs no brackets
        ("a (red apple) b", 5, 5, True, "a (red apple:1.2) b"),
        ("a (red:0.95) b", 3, 6, True, "a (red:1.05) b"),
        ("a <lora:fruit:0.5> b", 10, 10, True, "a <lora:fruit:0.55> b"),
        ("a <lora:fruit:1> b", 10, 10, False, "a <lora:fruit:0.95> b"),
        ("a  red  b", 2, 8, True, "a  (red:1.1)  b"),  # blanks around the words stay outside
        ("a [red:blue:5] b", 4, 4, True, "a [(red:1.1):blue:5] b"),
    ):
        found = call(visit, "weighed", text, start, end, up, KEYS)
        assert found["text"] == wanted, (text, start, end, up)


def test_a_weight_that_goes_up_and_down_leaves_the_prompt_as_it_was(visit: Visit) -> None:
    visit.open()
    for text, start, end in (("a red apple", 2, 5), ("x, big house, y", 3, 12), ("(a:1.3) b", 1, 2)):
        up = call(visit, "weighed", text, start, end, True, KEYS)
        down = call(visit, "weighed", up["text"], up["start"], up["end"], False, KEYS)
        assert down["text"] == text


def test_there_is_nothing_to_weigh_between_words(visit: Visit) -> None:
    visit.open()
    assert call(visit, "weighed", "a,  b", 3, 3, True, KEYS) is None
    assert call(visit, "weighed", "", 0, 0, True, KEYS) is None


def test_parts_of_a_prompt_move_past_each_other(visit: Visit) -> None:
    visit.open()
    assert call(visit, "moved", "one, two, three", 6, True)["text"] == "one, three, two"
    assert call(visit, "moved", "one, two, three", 6, False)["text"] == "two, one, three"
    assert call(visit, "moved", "one, two", 1, False) is None
    assert call(visit, "moved", "one, two", 6, True) is None
    found = call(visit, "moved", "one, two, three", 6, True)
    assert found["text"][found["start"] : found["end"]] == "two"


def test_the_length_of_both_prompts_is_shown(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple " * 30, negative_prompt="blurred")
    expect(visit.find("#txt2img-prompt-tokens")).to_have_text("90/150")
    expect(visit.find("#txt2img-negative_prompt-tokens")).to_have_text("1/75")


def test_an_address_fills_the_controls(visit: Visit) -> None:
    visit.open(query="?prompt=a+green+leaf&steps=7&width=128&cfg_scale=4.5&enable_hr=true&hr_scale=1.5&tiling=1")
    for name, value in (("steps", "7"), ("width", "128"), ("cfg_scale", "4.5"), ("hr_scale", "1.5")):
        expect(visit.find(f"#txt2img-{name} input[type=number]")).to_have_value(value)
    expect(visit.find("#txt2img-prompt textarea")).to_have_value("a green leaf")
    expect(visit.find("#txt2img-tiling input")).to_be_checked()


def test_what_an_address_says_wrongly_is_told_beside_its_control(visit: Visit) -> None:
    visit.open(query="?prompt=a+leaf&steps=many")
    expect(visit.find("#txt2img-steps .dk-error")).to_contain_text("integer")
    expect(visit.find("#txt2img-prompt textarea")).to_have_value("a leaf")


def test_the_last_seed_is_used_again(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple", **SMALL)
    card = visit.done(visit.begin())
    text = card.get_attribute("data-infotext") or ""
    seed = text.split("Seed: ")[1].split(",")[0]
    visit.find("#txt2img-reuse-seed").click()
    expect(visit.find("#txt2img-seed input")).to_have_value(seed)
    visit.find("#txt2img-random-seed").click()
    expect(visit.find("#txt2img-seed input")).to_have_value("-1")


def test_a_text_that_is_pasted_into_the_prompt_fills_the_controls(visit: Visit) -> None:
    text = "a blue bird\nNegative prompt: blurred\nSteps: 9, Sampler: Heun, CFG scale: 3.5, Seed: 77, Size: 64x128"
    visit.open().put("txt2img", prompt=text)
    visit.find("#txt2img-read").click()
    expect(visit.find("#txt2img-prompt textarea")).to_have_value("a blue bird")
    expect(visit.find("#txt2img-negative_prompt textarea")).to_have_value("blurred")
    expect(visit.find("#txt2img-sampler_name input")).to_have_value("Heun")
    expect(visit.find("#txt2img-seed input")).to_have_value("77")
    for name, value in (("steps", "9"), ("width", "64"), ("height", "128"), ("cfg_scale", "3.5")):
        expect(visit.find(f"#txt2img-{name} input[type=number]")).to_have_value(value)


def test_a_style_is_kept_chosen_and_put_into_the_prompts(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple")
    visit.find("#txt2img-edit-styles").click()
    visit.find("#style-name").fill("oil")
    visit.find("#style-prompt").fill("oil painting of {prompt}")
    visit.find("#style-negative_prompt").fill("photo")
    visit.find("#style-save").click()
    expect(visit.find("#styles .dr-status")).to_have_text("The style is saved.")
    visit.page.keyboard.press("Escape")
    visit.find("#txt2img-styles input").click()
    visit.page.get_by_role("option", name="oil").click()
    visit.find("#txt2img-apply-styles").click()
    expect(visit.find("#txt2img-prompt textarea")).to_have_value("oil painting of a red apple")
    expect(visit.find("#txt2img-negative_prompt textarea")).to_have_value("photo")


def test_what_is_chosen_above_goes_along_and_is_remembered(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple", **SMALL)
    slider = visit.find("#quick-CLIP_stop_at_last_layers input[type=number]")
    slider.fill("2")
    slider.blur()
    card = visit.done(visit.begin())
    expect(card).to_contain_text("Clip skip: 2")
    visit.open()
    expect(slider).to_have_value("2")


@pytest.mark.parametrize("key", ["Control+Enter", "Meta+Enter"])
def test_a_key_begins_a_picture_from_any_control_of_the_page(visit: Visit, key: str) -> None:
    visit.open().put("txt2img", prompt="a red apple", **SMALL)
    visit.find("#txt2img-steps input[type=number]").focus()
    with visit.new_card("txt2img") as found:
        visit.page.keyboard.press(key)
    visit.done(found[0])
