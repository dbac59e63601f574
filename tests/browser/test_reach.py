"""Everybody gets at everything: on a phone, by the keyboard alone, with a screen reader, soon, and in Chinese."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.visit import PAGES, SMALL, Visit
from tests.e2e.serving import Server

PHONE = 360
STANDARD = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def some_pictures(shared_server: Server) -> None:
    """Pages are not empty."""
    for seed in range(3):
        shared_server.post("/sdapi/v1/txt2img", {"prompt": "a red apple", "seed": seed, **SMALL})


def serious(visit: Visit) -> list[str]:
    """What axe-core finds that keeps people out."""
    found: list[dict[str, Any]] = (
        Axe().run(visit.page, options={"runOnly": STANDARD, "resultTypes": ["violations"]}).response["violations"]
    )
    return [
        f"{one['impact']}: {one['id']}: {node['html'][:160]} ({'; '.join(node['failureSummary'].splitlines()[1:2])})"
        for one in found
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_serious_on_any_page(visit: Visit, some_pictures: None, theme: str) -> None:
    visit.open(query=f"?__theme={theme}")
    found = {}
    for tab in PAGES:
        visit.show(tab)
        if troubles := serious(visit):
            found[tab] = troubles
    assert found == {}, "\n".join(f"{tab}: {one}" for tab, all_of_it in found.items() for one in all_of_it)


def test_axe_finds_nothing_serious_where_everything_is_unfolded(visit: Visit, some_pictures: None) -> None:
    visit.open()
    visit.put("txt2img", enable_hr=True, refines=True, variation=True, prompt="a red apple", **SMALL)
    card = visit.done(visit.begin())
    assert serious(visit) == []
    card.locator("[data-act=request]").click()
    visit.find("#request").wait_for()
    assert serious(visit) == []
    visit.page.keyboard.press("Escape")
    card.locator(".dk-picture").click()
    visit.find("#picture").wait_for()
    assert serious(visit) == []


def test_nothing_is_wider_than_a_phone(visiting: Callable[..., Visit], server: Server, some_pictures: None) -> None:
    visit = visiting(server, width=PHONE, height=740)
    visit.open()
    visit.put("txt2img", prompt="a red apple", enable_hr=True, variation=True, **SMALL)
    visit.done(visit.begin())
    wide = {}
    for tab in PAGES:
        visit.show(tab)
        widest = visit.page.evaluate("document.scrollingElement.scrollWidth")
        if widest > PHONE:
            wide[tab] = (widest, visit.page.evaluate(
                """() => [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
                && one.getBoundingClientRect().right > 361).slice(-3).map((one) => one.outerHTML.slice(0, 120))"""
            ))  # fmt: skip
    assert wide == {}


def test_a_phone_reaches_every_page_by_its_tab(visiting: Callable[..., Visit], server: Server) -> None:
    visit = visiting(server, width=PHONE, height=740).open()
    for tab in reversed(PAGES):
        visit.find(f"#tab-{tab}-button").click()
        expect(visit.find(f"#tab-{tab}")).to_be_visible()


def test_the_keyboard_alone_makes_a_picture(visit: Visit) -> None:
    visit.open()
    visit.put("txt2img", **SMALL)
    keys = visit.page.keyboard
    visit.find("#tab-txt2img-button").focus()
    for _ in range(12):
        keys.press("Tab")
        if visit.page.evaluate("document.activeElement.closest('#txt2img-prompt') !== null"):
            break
    keys.type("a red apple")
    with visit.new_card("txt2img") as found:
        keys.press("Control+Enter")
    visit.done(found[0])
    expect(found[0]).to_contain_text("a red apple")


def test_arrow_keys_weigh_the_words_that_are_selected(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple")
    box = visit.find("#txt2img-prompt textarea")
    box.focus()
    visit.page.evaluate("document.activeElement.setSelectionRange(2, 5)")
    visit.page.keyboard.press("Control+ArrowUp")
    expect(box).to_have_value("a (red:1.1) apple")
    visit.page.keyboard.press("Control+ArrowUp")
    expect(box).to_have_value("a (red:1.2) apple")
    visit.page.keyboard.press("Control+ArrowDown")
    visit.page.keyboard.press("Control+ArrowDown")
    expect(box).to_have_value("a red apple")


def test_every_control_is_reached_by_the_tab_key_and_shows_that_it_is(visit: Visit) -> None:
    visit.open()
    reached, unseen = set(), set()
    for _ in range(120):
        visit.page.keyboard.press("Tab")
        told = visit.page.evaluate(
            """() => {
              const one = document.activeElement, style = getComputedStyle(one);
              const near = getComputedStyle(one.closest(".wrap, .container, .block, label, td, li") ?? one);
              const ring = [style, near].some((s) => s.outlineStyle !== "none" || s.boxShadow !== "none");
              const none = one === document.body; // the browser's own bar, between the last control and the first
              return [one.closest("[id^=txt2img-]")?.id ?? one.id, ring || none, one.outerHTML.slice(0, 120)];
            }"""
        )
        reached.add(told[0])
        if not told[1]:
            unseen.add(told[2])
    wanted = {f"txt2img-{name}" for name in (
        "prompt", "negative_prompt", "generate", "styles", "sampler_name", "steps", "enable_hr", "refines", "width",
        "height", "n_iter", "batch_size", "cfg_scale", "seed", "variation",
    )}  # fmt: skip
    assert wanted - reached == set()
    assert unseen == set()


def test_the_first_picture_of_the_page_is_there_soon(visiting: Callable[..., Visit], server: Server) -> None:
    visit = visiting(server)
    begun = time.perf_counter()
    visit.open()
    usable_s = time.perf_counter() - begun
    paint = visit.page.evaluate(
        "performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint').startTime"
    )
    again = visit.open().page.evaluate("performance.getEntriesByType('paint').at(-1).startTime")
    print(f"\nfirst paint {paint / 1000:.2f} s, again {again / 1000:.2f} s, controls {usable_s:.2f} s")
    assert paint < 15_000  # a busy machine is slow; the figure is what is printed


def test_the_pages_speak_chinese_to_whoever_asks_for_it(visit: Visit) -> None:
    visit.open(query="?lang=zh")
    expect(visit.find("html")).to_have_attribute("lang", "zh")
    expect(visit.find("#txt2img-generate")).to_have_text("生成")
    expect(visit.find("#tab-gallery-button")).to_have_text("图库")
    card = visit.made(prompt="苹果", seed=1, **SMALL)
    expect(card.locator(".dk-state")).to_have_text("完成")
    visit.open()  # it is remembered
    expect(visit.find("#txt2img-generate")).to_have_text("生成")


def test_a_refusal_is_told_in_the_reader_s_language(visit: Visit) -> None:
    visit.forgive("/prompt/tokens")  # they are not counted either
    visit.open(query="?lang=zh").put("txt2img", prompt="x" * 20_001)
    visit.find("#txt2img-generate").click()
    expect(visit.find(".dk-error")).to_contain_text("最多 20000")


def test_light_and_dark_are_a_choice_that_is_kept(visit: Visit) -> None:
    visit.open()
    expect(visit.find("html")).to_have_attribute("data-theme", "dark")
    visit.find("#theme-toggle").click()
    expect(visit.find("html")).to_have_attribute("data-theme", "light")
    visit.open()
    expect(visit.find("html")).to_have_attribute("data-theme", "light")


def test_the_users_page_shows_every_page(repository: Path) -> None:
    text = (repository / "docs/web-ui.md").read_text(encoding="utf-8")
    missing = [tab for tab in PAGES if f"ui/{tab}.webp" not in text]
    assert missing == []
    assert all((repository / f"docs/ui/{tab}.webp").is_file() for tab in PAGES)
