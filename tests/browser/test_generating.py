"""Pictures are made on each page that makes them, and followed while they are."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from tests.browser.visit import LONG, SMALL, Visit, as_image, as_png
from tests.e2e.serving import Server, pixels


def upload(visit: Visit, selector: str, image: Image.Image, name: str = "mine.png") -> None:
    files = visit.find(f"{selector} input[type=file]").first
    files.set_input_files({"name": name, "mimeType": "image/png", "buffer": as_png(image)})


def test_words_become_a_picture(visit: Visit) -> None:
    card = visit.open().made(prompt="a red apple", seed=1, **SMALL)
    image = as_image(visit.picture(card))
    assert image.size == (64, 64)
    assert image.info["parameters"].startswith("a red apple\nSteps: 4,")
    expect(card).to_contain_text("Seed: 1,")
    expect(visit.find("#txt2img-results")).not_to_contain_text("Pictures appear here.")


def test_several_pictures_are_shown_one_at_a_time(visit: Visit) -> None:
    card = visit.open().made(prompt="a red apple", seed=1, batch_size=3, **SMALL)
    thumbs = card.locator(".dk-thumb")
    expect(thumbs).to_have_count(3)
    first = visit.picture(card)
    thumbs.nth(1).click()
    assert visit.picture(card) != first
    expect(thumbs.nth(1)).to_be_focused()


def test_a_picture_becomes_another(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    upload(visit, 'darkroom-picture[mode="plain"]', photo)
    card = visit.made("img2img", prompt="an apple", denoising_strength=0.5, seed=1, **SMALL)
    assert as_image(visit.picture(card)).size == (64, 64)
    _, asked = visit.request_of(card)
    sent = as_image(np_bytes(asked["init_images"][0]))
    assert np.array_equal(np.asarray(sent.convert("RGB")), np.asarray(photo))


def np_bytes(data: str) -> bytes:
    import base64

    return base64.b64decode(data.rpartition(",")[2])


def test_what_is_painted_over_is_made_anew_and_nothing_else(visit: Visit, photo: Image.Image) -> None:
    visit.open("img2img")
    upload(visit, 'darkroom-picture[mode="plain"]', photo)
    visit.find("#img2img-mode-inpaint-button").click()
    canvas = visit.find("#img2img-mode-inpaint darkroom-picture canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    mouse = visit.page.mouse
    mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.3)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.7, steps=8)
    mouse.up()
    card = visit.made(
        "img2img", prompt="a red apple", denoising_strength=0.9, seed=1, mask_blur=0, width=128, height=128, steps=6
    )
    _, asked = visit.request_of(card)
    mask = np.asarray(as_image(np_bytes(asked["mask"])).convert("L").resize(photo.size))
    assert mask[64, 96] == 255
    assert mask[64, 10] == 0
    apart = np.abs(pixels(visit.picture(card)) - pixels(photo)).max(axis=2)
    assert apart[mask == 255].mean() > 5
    assert apart[:, :40].max() == 0


def test_a_picture_is_enlarged(visit: Visit, photo: Image.Image) -> None:
    visit.open("extras")
    upload(visit, "#extras-image darkroom-picture", photo)
    card = visit.made("extras", upscaler_1="Darkroom 2x", upscaling_resize=2)
    assert as_image(visit.picture(card)).size == (256, 256)


def test_an_interrupted_picture_is_kept(visit: Visit, server: Server) -> None:
    visit.open().put("txt2img", prompt="a red apple", seed=1, **LONG)
    card = visit.begin()
    expect(card.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", "0")
    expect(card.locator("img.dk-live")).to_be_visible()
    card.locator("[data-act=interrupt]").click()
    visit.done(card, "interrupted")
    assert as_image(visit.picture(card)).size == (128, 128)


def test_the_pages_own_button_interrupts_the_newest(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple", **LONG)
    card = visit.begin()
    expect(card).to_have_attribute("data-state", "running")
    visit.find("#txt2img-interrupt").click()
    visit.done(card, "interrupted")


def test_a_page_that_is_loaded_again_takes_up_what_is_being_made(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple", seed=1, **LONG)
    name = visit.begin().get_attribute("id")
    visit.open()
    card = visit.find(f"#{name}")
    card.locator("[data-act=interrupt]").click()
    visit.done(card, "interrupted")
    assert as_image(visit.picture(card)).size == (128, 128)


def test_several_pictures_are_made_at_once(visit: Visit) -> None:
    visit.open().put("txt2img", prompt="a red apple", **LONG)
    slow = visit.begin()
    visit.put("txt2img", seed=2, **SMALL)
    quick = visit.done(visit.begin())
    expect(slow).to_have_attribute("data-state", "running")
    slow.locator("[data-act=cancel]").click()
    visit.done(slow, "cancelled")
    assert as_image(visit.picture(quick)).size == (64, 64)


def test_two_tabs_do_not_get_into_each_others_way(visit: Visit, visiting: Callable[..., Visit], server: Server) -> None:
    other = visiting(server, beside=visit)
    visit.open()
    other.open()
    visit.put("txt2img", prompt="a red apple", seed=3, **SMALL)
    other.put("txt2img", prompt="puppy dog", seed=4, **SMALL)
    first, second = visit.begin(), other.begin()
    assert "a red apple" in as_image(visit.picture(visit.done(first))).info["parameters"]
    assert "puppy dog" in as_image(other.picture(other.done(second))).info["parameters"]
    assert first.get_attribute("id") != second.get_attribute("id")


def test_a_refusal_is_shown_beside_the_field_that_caused_it(visit: Visit) -> None:
    visit.forgive("/prompt/tokens")  # they are not counted either
    visit.open().put("txt2img", prompt="x" * 20_001)
    visit.find("#txt2img-generate").click()
    told = visit.find("#txt2img-prompt").locator("xpath=ancestor-or-self::*[.//*[contains(@class, 'dk-error')]][1]")
    expect(told.locator(".dk-error").first).to_contain_text("20000")
    visit.put("txt2img", prompt="x", **SMALL)
    visit.done(visit.begin())
    expect(visit.find(".dk-error")).to_have_count(0)


def test_a_picture_that_is_missing_is_asked_for_in_words(visit: Visit) -> None:
    visit.open("img2img")
    visit.find("#img2img-generate").click()
    expect(visit.find("#tab-img2img .dk-error")).to_contain_text("Choose a picture to begin with.")


def test_a_file_brings_back_how_it_was_made(visit: Visit, server: Server) -> None:
    card = visit.open().made(
        prompt="a red apple", negative_prompt="green", seed=77, sampler_name="Euler a", cfg_scale=5, **SMALL
    )
    drawn = visit.picture(card)
    visit.open("png_info")
    files = visit.find("#png_info-picture input[type=file]")
    files.set_input_files({"name": "apple.png", "mimeType": "image/png", "buffer": drawn})
    expect(visit.find("#png_info-text")).to_contain_text("Seed: 77")
    visit.find("#png_info-send-txt2img").click()
    expect(visit.find("#txt2img-prompt textarea")).to_have_value("a red apple")
    expect(visit.find("#txt2img-negative_prompt textarea")).to_have_value("green")
    expect(visit.find("#txt2img-sampler_name input")).to_have_value("Euler a")
    expect(visit.find("#txt2img-seed input")).to_have_value("77")
    again = visit.done(visit.begin())
    assert visit.picture(again) == drawn


def test_a_picture_is_sent_from_its_card_to_another_page(visit: Visit) -> None:
    card = visit.open().made(prompt="a red apple", seed=5, **SMALL)
    card.locator('[data-send="img2img"]').click()
    expect(visit.find("#tab-img2img")).to_be_visible()
    expect(visit.find("#img2img-prompt textarea")).to_have_value("a red apple")
    second = visit.made("img2img", **SMALL)
    assert as_image(io.BytesIO(visit.picture(second)).getvalue()).size == (64, 64)
