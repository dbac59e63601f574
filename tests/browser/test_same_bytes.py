"""What a page does, a request does: the picture of the page and that of the request it shows are the same bytes."""

import base64
import random
from typing import Any

import pytest

from tests.browser.visit import Visit
from tests.e2e.serving import Server

SAMPLERS = ("Euler a", "Euler", "DPM++ 2M", "DPM++ SDE", "DPM++ 3M SDE", "Heun", "DDIM", "UniPC", "LCM", "DPM2 a")
SCHEDULES = ("Automatic", "Karras", "Exponential", "SGM Uniform", "Beta", "Simple")
WORDS = ("a red apple", "puppy (dog:1.3)", "[cat:dog:0.5] AND a moon:0.6", "a “quoted” 火 {brace}\nsecond line", "")
ROUNDS, EACH = 4, 5


def settings(draw: random.Random) -> dict[str, Any]:
    """Controls of txt2img, at random; small, so that a picture takes no time."""
    found: dict[str, Any] = {
        "prompt": draw.choice(WORDS),
        "negative_prompt": draw.choice(("", "green", "(blurry:1.2)")),
        "sampler_name": draw.choice(SAMPLERS),
        "scheduler": draw.choice(SCHEDULES),
        "steps": draw.randint(1, 6),
        "width": draw.choice((64, 72, 96)),
        "height": draw.choice((64, 80, 128)),
        "cfg_scale": draw.choice((1, 4.5, 7, 12)),
        "seed": draw.randrange(2**32),
        "tiling": draw.random() < 0.2,
        "n_iter": draw.choice((1, 1, 2)),
        "batch_size": draw.choice((1, 1, 2)),
        "enable_hr": draw.random() < 0.25,
        "variation": draw.random() < 0.3,
    }
    if found["enable_hr"]:
        found |= {"hr_scale": 1.5, "denoising_strength": draw.choice((0.4, 0.7)), "hr_upscaler": "Latent"}
    if found["variation"]:
        found |= {"subseed": draw.randrange(2**32), "subseed_strength": draw.choice((0.25, 1))}
    return found


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_request_that_a_page_shows_gives_the_same_bytes(visit: Visit, server: Server, number: int) -> None:
    draw = random.Random(number)
    visit.open()
    for _ in range(EACH):
        wanted = settings(draw)
        visit.put("txt2img", **wanted)
        card = visit.done(visit.begin())
        route, body = visit.request_of(card)
        asked = [base64.b64decode(data) for data in server.post(route, body)["images"]]
        thumbs = card.locator(".dk-thumb")
        shown = [visit.picture(card)]
        for place in range(1, thumbs.count()):
            thumbs.nth(place).click()
            shown.append(visit.picture(card))
        assert shown == asked[-len(shown) :], wanted  # of several, the first one asked for is their grid
