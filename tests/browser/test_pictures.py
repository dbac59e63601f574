"""Pictures that people bring along: what is painted on them, what becomes of several, and scripts over them."""

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import FilePayload, expect

from tests.browser.visit import SMALL, Visit, as_image, as_png

Pixels = NDArray[np.uint8]

PLOT = "x/y/z plot"


def bring(visit: Visit, part: str, *images: Image.Image, page: str = "img2img") -> None:
    """Choose pictures for one of a page's places."""
    files: list[FilePayload] = [
        {"name": f"mine-{n}.png", "mimeType": "image/png", "buffer": as_png(image)} for n, image in enumerate(images)
    ]
    visit.find(f"#{page}-picture-{part} input[type=file]").set_input_files(files)
    place = visit.find(f"#{page}-picture-{part}")
    expect(place.locator("li" if part == "batch" else "canvas").first).to_be_visible()


def choose(visit: Visit, part: str, page: str = "img2img") -> None:
    visit.find(f"#{page}-mode-{part}-button").click()
    visit.find(f"#{page}-picture-{part}").wait_for()


def paint(visit: Visit, part: str, *points: tuple[float, float]) -> None:
    """Draw a line with the mouse; places are parts of the picture's width and height."""
    canvas = visit.find(f"#img2img-picture-{part} canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    (x, y), *rest = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in points]
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    for x, y in rest:
        visit.page.mouse.move(x, y, steps=4)
    visit.page.mouse.up()


def gathered(visit: Visit, page: str = "img2img") -> dict[str, Any]:
    """What the page's elements give their handlers."""
    found: dict[str, Any] = json.loads(visit.page.evaluate("(page) => window.darkroom.gather(page)", page))
    return found


def shown(data: str) -> Pixels:
    return np.asarray(as_image(base64.b64decode(data)).convert("RGB"))


def pictures_of(visit: Visit, part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = gathered(visit)["pictures"][part]
    return found


def test_a_sketch_is_the_picture_with_its_paint_and_has_no_mask(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    choose(visit, "sketch")
    bring(visit, "sketch", photo)
    paint(visit, "sketch", (0.2, 0.5), (0.8, 0.5))
    card = visit.made("img2img", seed=1, **SMALL)
    _, asked = visit.request_of(card)
    apart = np.abs(shown(asked["init_images"][0]).astype(int) - np.asarray(photo).astype(int)).max(axis=2)
    assert "mask" not in asked
    assert apart[64, 64] > 30
    assert apart[:40].max() == apart[90:].max() == 0


def test_a_sketch_may_begin_on_white(visit: Visit) -> None:
    visit.open("img2img")
    visit.put("img2img", width=96, height=64)
    choose(visit, "sketch")
    visit.find("#img2img-picture-sketch [data-tool=blank]").click()
    expect(visit.find("#img2img-picture-sketch [role=status]")).to_have_text("96 × 64")
    assert shown(pictures_of(visit, "sketch")["image"]).min() == 255


def test_what_is_painted_in_colour_is_picture_and_mask_at_once(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    choose(visit, "inpaint_sketch")
    bring(visit, "inpaint_sketch", photo)
    paint(visit, "inpaint_sketch", (0.3, 0.3), (0.6, 0.3))
    found = pictures_of(visit, "inpaint_sketch")
    mask, painted = shown(found["mask"]).max(axis=2), shown(found["image"])
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(painted[mask == 0], np.asarray(photo)[mask == 0])
    assert (painted[mask == 255] != np.asarray(photo)[mask == 255]).any()


def test_nothing_painted_under_a_mask_is_told_in_words(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    choose(visit, "inpaint")
    bring(visit, "inpaint", photo)
    visit.find("#img2img-generate").click()
    expect(visit.find("#tab-img2img .dk-error")).to_contain_text("Paint over the part of the picture")


def test_a_mask_that_is_brought_along_is_sent_as_it_is(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    choose(visit, "inpaint_upload")
    mask = Image.new("L", photo.size)
    mask.paste(255, (0, 0, 64, 128))
    bring(visit, "inpaint_upload", photo)
    bring(visit, "inpaint_upload_mask", mask)
    card = visit.made("img2img", seed=1, mask_blur=2, **SMALL)
    _, asked = visit.request_of(card)
    assert base64.b64decode(asked["mask"]) == as_png(mask)
    assert base64.b64decode(asked["init_images"][0]) == as_png(photo)
    assert asked["mask_blur"] == 2


def test_the_keyboard_paints_erases_and_takes_back(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    choose(visit, "inpaint")
    bring(visit, "inpaint", photo)
    visit.find("#img2img-picture-inpaint canvas").focus()

    def press(*keys: str) -> str | None:
        for key in keys:
            visit.page.keyboard.press(key)
        mask: str | None = pictures_of(visit, "inpaint")["mask"]
        return mask

    line = press(" ", *["ArrowRight"] * 4, " ")
    assert line is not None
    assert shown(line)[64, 64:70].min() == 255
    assert press("Control+z") is None
    assert press("Control+y") == line
    erased = press("e", " ", *["ArrowLeft"] * 4, " ")
    assert erased is not None
    assert shown(erased).max() == 0


def test_pictures_are_dropped_from_this_server_and_from_nowhere_else(visit: Visit, photo: Image.Image) -> None:
    card = visit.open().made(prompt="a red apple", seed=3, **SMALL)
    address = card.locator(".dk-picture img").get_attribute("src")
    visit.show("img2img")
    drop = """([selector, address]) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.setData("text/uri-list", address);
      const given = { dataTransfer, bubbles: true, cancelable: true };
      document.querySelector(selector).dispatchEvent(new DragEvent("drop", given));
    }"""
    place = "#img2img-picture-img2img darkroom-picture"
    status = visit.find(f"{place} [role=status]")
    visit.page.evaluate(drop, [place, visit.url + str(address)])
    expect(status).to_have_text("64 × 64")
    assert base64.b64decode(pictures_of(visit, "img2img")["image"]) == visit.picture(card)
    visit.page.evaluate(drop, [place, "https://example.org/cat.png"])
    expect(status).to_have_text("Pictures of other sites must be saved as files first.")


def test_a_file_that_is_no_picture_is_refused_in_words(visit: Visit) -> None:
    visit.open("img2img")
    files = visit.find("#img2img-picture-img2img input[type=file]")
    files.set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(visit.find("#img2img-picture-img2img [role=status]")).to_contain_text("not a picture")


def test_a_size_follows_from_the_picture(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    bring(visit, "img2img", photo.crop((0, 0, 128, 64)))
    visit.find("#img2img-fit").click()
    expect(visit.find("#img2img-width input[type=number]")).to_have_value("128")
    expect(visit.find("#img2img-height input[type=number]")).to_have_value("64")
    visit.put("img2img", steps=2, resize_by=True, resize_scale=0.5)
    assert as_image(visit.picture(visit.made("img2img"))).size == (64, 32)


def test_a_batch_is_a_job_for_each_picture_and_one_archive(visit: Visit, photo: Image.Image) -> None:
    visit.open("extras")
    choose(visit, "batch", "extras")
    bring(visit, "batch", photo, photo.rotate(90), page="extras")
    visit.put("extras", upscaler_1="Lanczos", upscaling_resize=2)
    visit.find("#extras-generate").click()
    cards = visit.find('#extras-results .dk-card[data-state="done"]')
    expect(cards).to_have_count(2)
    with visit.page.expect_download() as download:
        visit.find("[data-tool=archive]").click()
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    assert archive.testzip() is None
    assert archive.namelist() == ["1-mine-0.png", "2-mine-1.png"]
    assert as_image(archive.read("2-mine-1.png")).size == (256, 256)


def test_a_plot_shows_its_grid_and_comes_back_from_it(visit: Visit) -> None:
    visit.open()
    visit.put("txt2img", prompt="a red apple", **SMALL)
    visit.find("#txt2img-script_name-choice").select_option(PLOT)
    visit.find('[id="txt2img-script_args[1]-text"]').fill("1-2")
    visit.find('[id="txt2img-script_args[3]-choice"]').select_option("Sampler")
    values = visit.find('[id="txt2img-script_args[4]"]')
    values.get_by_label("Euler a", exact=True).check()
    values.get_by_label("DDIM", exact=True).check()
    card = visit.done(visit.begin())
    grid = as_image(visit.picture(card))
    assert grid.width > 2 * 64
    assert grid.height > 2 * 64
    card.locator('[data-send="png_info"]').click()
    visit.find("#txt2img-script_name-choice").select_option("", force=True)
    visit.find("#png_info-send-txt2img").click()
    expect(visit.find("#txt2img-script_name-choice")).to_have_value(PLOT)
    expect(visit.find('[id="txt2img-script_args[4]-text"]')).to_have_value("Euler a, DDIM")
    assert np.array_equal(np.asarray(as_image(visit.picture(visit.done(visit.begin())))), np.asarray(grid))


def test_values_to_pick_from_are_all_taken_by_one_button(visit: Visit) -> None:
    visit.open()
    visit.find("#txt2img-script_name-choice").select_option(PLOT)
    visit.find('[id="txt2img-script_args[0]-choice"]').select_option("RNG source")
    visit.find('[id="txt2img-script_args[1]"]').wait_for()
    visit.find("#txt2img-scripts .dk-script-axis").first.get_by_role("button").click()
    assert gathered(visit, "txt2img")["scripts"]["script_args"][2] == ["GPU", "CPU", "NV"]


def test_a_script_that_is_asked_wrongly_says_so_beside_the_argument(visit: Visit) -> None:
    visit.forgive("400")
    visit.open()
    visit.find("#txt2img-script_name-choice").select_option(PLOT)
    visit.find('[id="txt2img-script_args[1]-text"]').fill("abc")
    visit.find("#txt2img-generate").click()
    error = visit.find('[id="txt2img-script_args[1]"] .dk-error')
    expect(error).to_contain_text("'abc' is not allowed; a number, or a range")
    expect(visit.find('[id="txt2img-script_args[1]-text"]')).to_be_focused()


def test_soft_inpainting_comes_back_from_the_picture(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    choose(visit, "inpaint")
    bring(visit, "inpaint", photo)
    paint(visit, "inpaint", (0.3, 0.5), (0.7, 0.5))
    visit.find("#img2img-scripts summary").first.click()
    visit.find("#img2img-soft_inpainting-0-switch").check()
    visit.find("#img2img-soft_inpainting-2-number").fill("0.75")
    card = visit.made("img2img", seed=1, mask_blur=6, **SMALL)
    visit.open("img2img")  # all is as it was at first
    text = card.page.request.get(f"{visit.url}/images?limit=1").json()["images"][0]["infotext"]
    visit.page.evaluate("(text) => window.darkroom.post('img2img-paste', { text })", text)
    expect(visit.find("#img2img-mask_blur input[type=number]")).to_have_value("6", timeout=10_000)
    expect(visit.find("#img2img-soft_inpainting-2-number")).to_have_value("0.75")
    scripts = gathered(visit)["scripts"]
    assert scripts["alwayson_scripts"] == {"Soft inpainting": {"args": [True, 1, 0.75, 4, 0, 0.5, 2]}}


def test_everything_on_the_page_comes_back_from_the_picture(visit: Visit) -> None:
    visit.open()
    visit.put("txt2img", prompt="a (red:1.1) apple", negative_prompt="blue", seed=5, tiling=True, **SMALL)
    visit.put("txt2img", enable_hr=True, variation=True)
    visit.put("txt2img", hr_scale=1.5, hr_second_pass_steps=2, subseed=77, subseed_strength=0.3)
    card = visit.done(visit.begin())
    drawn = visit.picture(card)
    _, asked = visit.request_of(card)
    visit.open("png_info")
    files = visit.find("#png_info-picture input[type=file]")
    files.set_input_files({"name": "apple.png", "mimeType": "image/png", "buffer": drawn})
    visit.find("#png_info-send-txt2img").click()
    expect(visit.find("#txt2img-seed input")).to_have_value("5")
    again = visit.done(visit.begin())
    _, asked_again = visit.request_of(again)
    assert asked_again == asked
    assert visit.picture(again) == drawn
