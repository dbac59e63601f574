"""The pictures of the pages in the documentation: every page is looked at, and written to `docs/ui` where
DARKROOM_SCREENS names that folder (`make ui-screenshots`).
"""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, expect

from tests.browser.visit import PAGES, Visit
from tests.e2e.serving import Server

FOLDER = os.environ.get("DARKROOM_SCREENS", "")
PROMPTS = ("a red apple", "puppy dog", "full moon", "watermelon", "a blue car", "umbrella", "house", "rainbow")
QUALITY = 82

pytestmark = pytest.mark.skipif(not FOLDER, reason="make ui-screenshots writes the pictures of the documentation")


@pytest.fixture(scope="module")
def drawn(shared_server: Server) -> None:
    """Pages that have something to show."""
    for seed, prompt in enumerate(PROMPTS):
        shared_server.post(
            "/sdapi/v1/txt2img", {"prompt": prompt, "seed": seed, "width": 128, "height": 128, "steps": 12}
        )


def keep(visit: Visit, name: str, *, whole: bool = False) -> None:
    """Write what is seen."""
    visit.page.wait_for_function("[...document.images].every((one) => one.complete || !one.checkVisibility())")
    data = visit.page.screenshot(full_page=whole, animations="disabled", caret="hide")
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(Path(FOLDER) / f"{name}.webp", quality=QUALITY, method=6)


def fill(visit: Visit, tab: str, apple: bytes) -> None:
    """Have a page show what it is for."""
    file = FilePayload(name="apple.png", mimeType="image/png", buffer=apple)
    if tab == "txt2img":
        visit.put("txt2img", prompt="a red apple", seed=1, batch_size=4, steps=12, width=128, height=128)
        visit.done(visit.begin())
    elif tab == "img2img":
        visit.find("#img2img-mode-inpaint-button").click()
        visit.find("#img2img-mode-inpaint input[type=file]").first.set_input_files(file)
        canvas = visit.find("#img2img-mode-inpaint canvas")
        box = canvas.bounding_box()
        assert box is not None
        visit.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
        visit.page.mouse.down()
        visit.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6, steps=12)
        visit.page.mouse.up()
        visit.put("img2img", prompt="a green apple", seed=8, steps=12, width=128, height=128)
        visit.done(visit.begin("img2img"))
    elif tab == "extras":
        visit.find("#extras-image input[type=file]").first.set_input_files(file)
        visit.put("extras", upscaler_1="Darkroom 2x", upscaling_resize=2)
        visit.done(visit.begin("extras"))
    elif tab == "png_info":
        visit.find("#png_info-picture input[type=file]").set_input_files(file)
        visit.find("#png_info-parameters").wait_for()
    elif tab == "gallery":
        expect(visit.find("#gallery-grid li").nth(7)).to_be_visible()


@pytest.fixture
def apple(server: Server, drawn: None) -> bytes:
    """A picture that says how it was made."""
    found = server.get("/images?text=red apple&limit=1")["images"][0]
    return server.client.get(found["url"]).content


def test_every_page_has_its_picture(visiting: Callable[..., Visit], server: Server, apple: bytes) -> None:
    visit = visiting(server, width=1280, height=860).open()
    for tab in PAGES:
        fill(visit.show(tab), tab, apple)
        visit.page.mouse.move(0, 0)
        visit.page.evaluate("scrollTo(0, 0)")
        keep(visit, tab)


def test_the_other_ways_of_looking_have_theirs(visiting: Callable[..., Visit], server: Server, apple: bytes) -> None:
    phone = visiting(server, width=360, height=740).open()
    phone.put("txt2img", prompt="a red apple", seed=8, steps=12, width=128, height=128)
    phone.done(phone.begin())
    phone.page.evaluate("scrollTo(0, 0)")
    keep(phone, "phone")
    light = visiting(server, width=1280, height=860).open(query="?__theme=light")
    fill(light, "txt2img", apple)
    keep(light, "light")
    chinese = visiting(server, width=1280, height=860).open(query="?lang=zh")
    fill(chinese, "txt2img", apple)
    keep(chinese, "chinese")


def test_the_pictures_are_small_together(drawn: None) -> None:
    assert sum(path.stat().st_size for path in Path(FOLDER).glob("*.webp")) < 2_000_000
