"""Descriptions of pictures: what is asked of the engine, and how its answers are worded."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from darkroom.api.descriptions import in_tags, in_words
from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.nets.describers.missing import MissingNetwork
from darkroom.options.values import OptionValues
from tests.unit.api.conftest import Serve, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

TAGS = Description(
    texts=(("rating:safe", 0.99), ("blue_eyes", 0.71), ("1girl", 0.98765), ("\\(^_^)/", 0.9), ("unused", 0.6))
)
SENTENCE = Description(sentence="a dog on a beach", texts=(("by Rembrandt", 0.4321), ("matte painting", 0.05)))

Ask = Callable[..., Any]


@pytest.fixture
def ask(client: TestClient) -> Ask:
    def ask(**fields: object) -> Any:
        return client.post("/sdapi/v1/interrogate", json={"image": to_base64(noise(40, 20)), **fields})

    return ask


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"1girl, \\\(^ ^\)/, blue eyes, unused"),
        ({"deepbooru_sort_alpha": False}, r"1girl, \\\(^ ^\)/, blue eyes, unused"),
        ({"deepbooru_use_spaces": False}, r"1girl, \\\(^_^\)/, blue_eyes, unused"),
        ({"deepbooru_escape": False}, r"1girl, \(^ ^)/, blue eyes, unused"),
        ({"deepbooru_filter_tags": "blue eyes , 1girl,"}, r"\\\(^ ^\)/, unused"),
        ({"deepbooru_filter_tags": "blue_eyes"}, r"1girl, \\\(^ ^\)/, unused"),
        (
            {"interrogate_return_ranks": True},
            r"(1girl:0.988), (\\\(^ ^\)/:0.900), (blue eyes:0.710), (unused:0.600)",
        ),
    ],
)
def test_tags_are_worded_as_the_options_say(options: dict[str, Any], text: str) -> None:
    assert in_tags(TAGS, OptionValues(options)) == text


def test_tags_are_sorted_by_name_or_by_likelihood() -> None:
    tags = Description(texts=(("b", 0.6), ("a", 0.7), ("c", 0.9), ("d", 0.7)))
    assert in_tags(tags, OptionValues()) == "a, b, c, d"
    assert in_tags(tags, OptionValues({"deepbooru_sort_alpha": False})) == "c, a, d, b"
    assert in_tags(Description(), OptionValues()) == ""


def test_a_sentence_is_followed_by_what_fits() -> None:
    assert in_words(SENTENCE, OptionValues()) == "a dog on a beach, by Rembrandt, matte painting"
    ranked = OptionValues({"interrogate_return_ranks": True})
    assert in_words(SENTENCE, ranked) == "a dog on a beach, (by Rembrandt:0.432), (matte painting:0.050)"
    assert in_words(Description(sentence="a dog"), ranked) == "a dog"


def test_a_sentence_is_asked_for_by_default(ask: Ask, client: TestClient, engine: FakeEngine) -> None:
    engine.description = SENTENCE
    assert ask().json() == {"caption": "a dog on a beach, by Rembrandt, matte painting"}
    [(picture, question)] = engine.questions
    assert np.array_equal(picture, np.asarray(noise(40, 20)))
    assert question == InWords(beams=1, shortest=24, longest=48, lines=1500, left_out=(), keep=False)
    changed = {
        "interrogate_clip_num_beams": 4,
        "interrogate_clip_min_length": 5,
        "interrogate_clip_max_length": 60,
        "interrogate_clip_dict_limit": 0,
        "interrogate_clip_skip_categories": ["artists"],
        "interrogate_keep_models_in_memory": True,
    }
    assert client.post("/sdapi/v1/options", json=changed).status_code == 200
    ask(model="clip")
    assert engine.questions[1][1] == InWords(beams=4, shortest=5, longest=60, lines=0, left_out=("artists",), keep=True)


def test_tags_are_asked_for_by_a_square_picture(ask: Ask, client: TestClient, engine: FakeEngine) -> None:
    engine.description = TAGS
    client.post("/sdapi/v1/options", json={"interrogate_deepbooru_score_threshold": 0.25})
    assert ask(model="deepdanbooru").json()["caption"].startswith("1girl, ")
    [(picture, question)] = engine.questions
    assert (picture.shape, question) == ((512, 512, 3), InTags(threshold=0.25, keep=False))
    # Between two stretched borders the whole picture, 512 x 256.
    assert np.ptp(picture[:128].astype(int), axis=0).max() == 0
    assert np.ptp(picture[128:384].astype(int), axis=0).max() > 0


def test_a_network_that_is_missing_is_named_with_its_file(ask: Ask, engine: FakeEngine) -> None:
    place = Path("models/torch_deepdanbooru/model-resnet_custom_v3.pt")
    engine.failure = MissingNetwork("deepdanbooru", "its file", place)
    answer = ask(model="deepdanbooru")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_installed")
    assert str(place) in str(answer.json()["detail"])


def test_what_could_not_be_asked_is_a_warning(ask: Ask, serve: Serve, engine: FakeEngine) -> None:
    engine.description = Description(sentence="a dog", warnings=("no CLIP here",))
    assert ask().headers["X-Darkroom-Warnings"] == "no CLIP here"
    strict = serve(strict=True).post("/sdapi/v1/interrogate", json={"image": to_base64(noise(8, 8))})
    assert (strict.status_code, strict.json()["code"]) == (422, "not_strict")


def test_one_picture_after_the_other_is_described_and_shown_in_progress(
    ask: Ask, client: TestClient, engine: FakeEngine
) -> None:
    engine.held = True
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while client.get("/internal/pending-tasks").json()["size"] < 1 or not engine.questions:
        time.sleep(0.002)
    assert client.get("/sdapi/v1/progress").json()["state"]["job"] == "interrogate"
    time.sleep(0.05)
    assert len(engine.questions) == 1
    engine.held = False
    for thread in threads:
        thread.join(10)
    assert len(engine.questions) == 3
    assert client.get("/sdapi/v1/progress").json()["state"]["job"] == ""


def test_an_unknown_model_is_told_after_a_bad_picture(ask: Ask, client: TestClient) -> None:
    answer = ask(model="deepbooru")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Model not found")
    assert ask(model="deepbooru", image="").status_code == 422
    assert client.post("/sdapi/v1/interrogate", json={}).status_code == 422
    assert ask(image=None).status_code == 422
