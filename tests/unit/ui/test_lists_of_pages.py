"""What the pages Models and Checkpoint Merger make of what stands in them."""

from typing import Any

import pytest

from darkroom.api.merge_request import Merge
from darkroom.ui.pages.checkpoint_merger import request_of
from darkroom.ui.pages.models import inserted

PROMPT, NEGATIVE = ("txt2img", "prompt"), ("txt2img", "negative_prompt")


def put(text: str, into: tuple[str, str], prompts: dict[tuple[str, str], str]) -> dict[tuple[str, str], Any]:
    found = inserted({"to": into[0], "where": into[1], "text": text}, prompts)
    return dict(zip(prompts, found, strict=True))


def test_a_tag_goes_behind_the_prompt_that_is_meant() -> None:
    prompts = put("<lora:ink:1>", PROMPT, {PROMPT: "a cat ", NEGATIVE: "blurry"})
    assert prompts[PROMPT] == "a cat <lora:ink:1>"
    assert prompts[NEGATIVE]["__type__"] == "update"


@pytest.mark.parametrize(("before", "after"), [("", "<lora:ink:1>"), ("a <lora:ink:1> b", "a <lora:ink:1> b")])
def test_a_tag_stands_alone_in_an_empty_prompt_and_never_twice(before: str, after: str) -> None:
    assert put("<lora:ink:1>", PROMPT, {PROMPT: before})[PROMPT] == after


def test_controls_of_a_merge_become_its_request() -> None:
    fields = {
        "a": "dreamer",
        "b": "painter",
        "metadata": '{"author": "me"}',
        "sd_vae": "x",
        "c": None,
        "block_weights": "",
    }
    request = request_of(fields)
    assert request == {"a": "dreamer", "b": "painter", "metadata": {"author": "me"}, "block_weights": ""}
    assert Merge.model_validate(request).block_weights == []


@pytest.mark.parametrize(("text", "sent"), [("", {}), (" ", {}), ("{", "{"), ("[1]", [1])])
def test_what_is_no_json_is_left_to_the_api_to_refuse(text: str, sent: object) -> None:
    assert request_of({"a": "x", "metadata": text})["metadata"] == sent
