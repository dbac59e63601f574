"""What was made is found again, what was set stays set, and everybody sees only what is his or her own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visit import SMALL, Visit, as_image
from tests.e2e.serving import Server, serving

EMBEDDED = Path(__file__).parents[2] / "darkroom/mini/darkroom-mini.safetensors"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Server]:
    """A server with two users and two checkpoints."""
    folder = tmp_path_factory.mktemp("guarded")
    models = folder / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    for name in ("first", "second"):
        shutil.copy(EMBEDDED, models / f"Stable-diffusion/{name}.safetensors")
        shutil.copy(EMBEDDED.with_suffix(".yaml"), models / f"Stable-diffusion/{name}.yaml")
    flags = ("--gradio-auth", "anna:one two three,ben:four five six", "--models-dir", str(models))
    with serving(folder, *flags, auth=("anna", "one two three")) as server:
        yield server


def log_in(visit: Visit, user: str, password: str) -> Visit:
    visit.forgive("/login")  # a wrong password is refused with 400
    visit.page.goto(f"{visit.url}/ui/")
    visit.page.get_by_label("User name").fill(user)
    visit.page.get_by_label("Password").fill(password)
    visit.page.get_by_role("button", name="Log in").click()
    return visit


def test_everybody_logs_in_and_sees_pictures_of_ones_own(visiting: Callable[..., Visit], guarded: Server) -> None:
    anna, ben = visiting(guarded), visiting(guarded)
    log_in(anna, "anna", "wrong")
    expect(anna.page.get_by_role("alert")).to_contain_text("Wrong user name or password")
    log_in(anna, "anna", "one two three")
    anna.find("#txt2img-generate").wait_for()
    card = anna.made(prompt="a red apple", seed=1, **SMALL)
    source = card.locator(".dk-picture img").get_attribute("src")

    log_in(ben, "ben", "four five six")
    ben.find("#txt2img-generate").wait_for()
    ben.show("gallery")
    expect(ben.find("#gallery-status")).to_contain_text("No pictures yet")
    assert ben.page.request.get(f"{guarded.url}{source}").status == 404
    ben.show("jobs")
    expect(ben.find("#jobs-status")).to_contain_text("No jobs")

    anna.show("gallery")
    expect(anna.find("#gallery-grid li")).to_have_count(1)
    anna.show("api")
    expect(anna.find("#api-who")).to_contain_text("anna")
    anna.find("#api-logout button").click()
    expect(anna.page.get_by_label("Password")).to_be_visible()
    assert anna.page.request.get(f"{guarded.url}{source}").status == 401


@pytest.mark.parametrize("control", ["#txt2img-edit-styles", "[data-act=request]"])
def test_whoever_is_no_longer_logged_in_is_led_to_the_login_page(
    visiting: Callable[..., Visit], guarded: Server, control: str
) -> None:
    visit = log_in(visiting(guarded), "anna", "one two three")
    visit.find("#txt2img-generate").wait_for()
    visit.made(prompt="a red apple", seed=1, **SMALL)
    visit.forgive("401")
    visit.page.context.clear_cookies()
    visit.find(control).first.click()
    expect(visit.page.get_by_label("Password")).to_be_visible()


def test_checkpoints_are_merged_and_listed_at_once(visiting: Callable[..., Visit], guarded: Server) -> None:
    visit = log_in(visiting(guarded), "anna", "one two three")
    visit.find("#txt2img-generate").wait_for()
    visit.show("merger")
    names = guarded.get("/sdapi/v1/sd-models")
    first, second = (next(one["title"] for one in names if one["model_name"] == name) for name in ("first", "second"))
    visit.put("merger", a=first, b=second, name="both", multiplier=0.5)
    card = visit.done(visit.begin("merger"))
    expect(card).to_contain_text("both")
    visit.show("txt2img")
    visit.put("quick", sd_model_checkpoint=next(
        one["title"] for one in guarded.get("/sdapi/v1/sd-models") if one["model_name"] == "both"))  # fmt: skip
    drawn = visit.made(prompt="a red apple", seed=1, **SMALL)
    assert "Model: both" in as_image(visit.picture(drawn)).info["parameters"]


def test_settings_are_found_changed_kept_and_put_back(visit: Visit, server: Server) -> None:
    visit.open("settings")
    visit.find("#settings-search").fill("enable_pnginfo")
    option = visit.find('[data-option="enable_pnginfo"]')
    switch = option.locator("#settings-enable_pnginfo")
    expect(switch).to_be_checked()
    switch.uncheck()
    expect(visit.find("#settings-status")).to_contain_text("1 change is not applied yet")
    visit.find("#settings-apply").click()
    expect(visit.find("#settings-status")).to_contain_text("1 setting is saved.")
    assert server.get("/sdapi/v1/options")["enable_pnginfo"] is False

    visit.open("settings")
    visit.find("#settings-changed").check()
    expect(option).to_be_visible()
    option.locator("[data-act=reset]").click()
    visit.find("#settings-apply").click()
    expect(visit.find("#settings-status")).to_contain_text("1 setting is saved.")
    assert server.get("/sdapi/v1/options")["enable_pnginfo"] is True


def test_a_setting_that_cannot_be_so_is_told_beside_it(visit: Visit, server: Server) -> None:
    visit.forgive("/sdapi/v1/options")
    visit.open("settings")
    visit.find("#settings-search").fill("jpeg_quality")
    expect(visit.find("#settings-title")).to_have_text("1 setting")  # the list is drawn anew once one has typed
    box = visit.find("#settings-jpeg_quality")
    box.fill("5000")
    visit.find("#settings-apply").click()
    expect(visit.find("#settings-jpeg_quality-problem")).to_contain_text("5000")
    expect(box).to_be_focused()
    assert server.get("/sdapi/v1/options")["jpeg_quality"] == 80


def test_pictures_are_found_by_their_words_and_seed(visit: Visit) -> None:
    visit.open()
    visit.made(prompt="a lighthouse at dusk", seed=4711, **SMALL)
    visit.made(prompt="a windmill at noon", seed=4712, **SMALL)
    visit.show("gallery")
    tiles = visit.find("#gallery-grid li")
    visit.find("#gallery-text").fill("lighthouse")
    expect(tiles).to_have_count(1)
    expect(tiles).to_have_attribute("title", "a lighthouse at dusk")
    visit.find("#gallery-text").fill("")
    visit.find("#gallery-seed").fill("4712")
    expect(tiles).to_have_attribute("title", "a windmill at noon")
    tiles.locator("button").click()
    expect(visit.find("#picture-text")).to_contain_text("a windmill at noon")
    visit.page.keyboard.press("Escape")
    visit.find("#gallery-seed").fill("4713")
    expect(visit.find("#gallery-status")).to_contain_text("No picture fits.")


def test_two_pictures_are_compared(visit: Visit) -> None:
    visit.open()
    visit.made(prompt="a bridge", seed=4801, **SMALL)
    visit.made(prompt="a bridge", seed=4802, **SMALL)
    visit.show("gallery")
    visit.find("#gallery-text").fill("bridge")
    tiles = visit.find("#gallery-grid li")
    expect(tiles).to_have_count(2)
    for place in range(2):
        tiles.nth(place).get_by_role("checkbox").check()
    visit.find("#gallery-compare").click()
    expect(visit.find("#compare-differences")).to_contain_text("4801")
    expect(visit.find("#compare-differences")).to_contain_text("4802")


def test_a_job_is_found_and_made_again(visit: Visit) -> None:
    visit.open()
    card = visit.made(prompt="a kite", seed=4901, **SMALL)
    job = (card.get_attribute("id") or "").removeprefix("job-")
    drawn = visit.picture(card)
    visit.show("jobs")
    row = visit.find(f'#jobs-list li[data-job="{job}"]')
    expect(row).to_have_attribute("data-state", "done")
    row.locator("[data-act=rerun]").click()
    newest = visit.find("#jobs-list li").first
    expect(newest).not_to_have_attribute("data-job", job)
    expect(newest).to_have_attribute("data-state", "done")
    again = newest.get_attribute("data-job")
    answer = visit.page.request.get(f"{visit.url}/jobs/{again}").json()
    file = visit.page.request.get(f"{visit.url}{answer['images'][0]['url']}")
    assert file.body() == drawn
