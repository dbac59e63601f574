"""The pages as they are built, without a browser."""

import asyncio
import re
from collections import Counter
from typing import Any

import gradio as gr
import pytest

from darkroom.api.models import Txt2Img
from darkroom.settings import Settings
from darkroom.ui.app import create_pages
from darkroom.ui.words import Words

WITHOUT_A_CONTROL = {
    "do_not_save_grid", "do_not_save_samples", "override_settings_restore_afterwards", "comments",  # no effect
    "disable_extra_networks", "firstpass_image", "force_task_id", "infotext", "send_images",  # for programs
    "sampler_index", "firstphase_width", "firstphase_height",  # old names
    "distilled_cfg_scale", "eta", "s_churn", "s_min_uncond", "s_noise", "s_tmax", "s_tmin",  # options: a line each
    "script_name", "script_args", "alwayson_scripts",  # the scripts' own panels
}  # fmt: skip
"""Fields of a request that its page does not show as they are, and why."""


@pytest.fixture(scope="module")
def blocks() -> gr.Blocks:
    host = create_pages(Settings(max_width=1024, history=False), Words(), "/ui")
    found = host.routes[-1].app.get_blocks()  # type: ignore[attr-defined]
    assert isinstance(found, gr.Blocks)
    return found


@pytest.fixture(scope="module")
def config(blocks: gr.Blocks) -> dict[str, Any]:
    """The pages as a browser is told of them."""
    return dict(blocks.get_config_file())


def props(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [component["props"] for component in config["components"]]


def test_no_two_elements_go_by_the_same_id(config: dict[str, Any]) -> None:
    counts = Counter(one["elem_id"] for one in props(config) if one.get("elem_id"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_field_of_a_request_has_its_control(config: dict[str, Any]) -> None:
    ids = {one.get("elem_id") for one in props(config)}
    missing = {name for name in Txt2Img.model_fields if f"txt2img-{name}" not in ids}
    assert missing == WITHOUT_A_CONTROL


def test_a_range_ends_where_the_settings_end_it(config: dict[str, Any]) -> None:
    width = next(one for one in props(config) if one.get("elem_id") == "txt2img-width")
    assert (width["minimum"], width["maximum"]) == (64, 1024)


def test_no_event_is_offered_to_other_programs(config: dict[str, Any]) -> None:
    assert [event["id"] for event in config["dependencies"] if event["api_visibility"] == "public"] == []


def test_the_queue_in_which_no_page_waits_is_seldom_looked_into(blocks: gr.Blocks) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        blocks._queue.stopped = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", nap)
        asyncio.run(blocks._queue.start_processing())
    blocks._queue.stopped = False
    assert naps == [1.0]


def test_no_page_waits_in_gradios_queue(config: dict[str, Any]) -> None:
    assert [event["id"] for event in config["dependencies"] if event["queue"] is not False] == []


def test_nothing_is_loaded_from_elsewhere(blocks: gr.Blocks) -> None:
    assert blocks.stylesheets == []
    assert re.findall(r"https?://(?!www\.w3\.org/)|@import", blocks.theme_css) == []
