"""The pages put together: one Gradio application for each language. Starts nothing."""

import asyncio
import os
from collections.abc import Callable

import gradio as gr
from fastapi import FastAPI

from darkroom.settings import Settings
from darkroom.ui.pages import (
    api,
    checkpoint_merger,
    extensions,
    extras,
    gallery,
    img2img,
    jobs,
    models,
    png_info,
    train,
    txt2img,
)
from darkroom.ui.pages import (
    settings as options,
)
from darkroom.ui.parts.quick_settings import quick_settings, recall
from darkroom.ui.shell import Shell
from darkroom.ui.theme import theme
from darkroom.ui.words import Words

_PAGES: tuple[tuple[str, str, Callable[[Shell], None]], ...] = (
    ("txt2img", "txt2img", txt2img.build),
    ("img2img", "img2img", img2img.build),
    ("extras", "Extras", extras.build),
    ("png_info", "PNG Info", png_info.build),
    ("merger", "Checkpoint Merger", checkpoint_merger.build),
    ("train", "Train", train.build),
    ("gallery", "Gallery", gallery.build),
    ("jobs", "Jobs", jobs.build),
    ("models", "Models", models.build),
    ("settings", "Settings", options.build),
    ("extensions", "Extensions", extensions.build),
    ("api", "API", api.build),
)
"""Name, title and builder of each page, in the order of the tabs. A page's tab has the `elem_id` `tab-{name}`."""

_CACHE_S = 3600
_LONGEST_UPLOAD = 64 * 2**20

_LOOK_S = 1.0
"""How often Gradio's queue is looked into, in which no page waits. By default a thousand times a second, which takes an
idle server a tenth of a core and more."""


def create_pages(settings: Settings, words: Words, path: str) -> FastAPI:
    """An application that has the pages of one language mounted at a path, as its last route.

    Call it where no event loop runs: it takes seconds.
    """
    return asyncio.run(_create(settings, words, path))


async def _create(settings: Settings, words: Words, path: str) -> FastAPI:
    """In a loop, because where none runs Gradio makes some of its own and closes none."""
    host, blocks = FastAPI(openapi_url=None), build(settings, words)
    blocks._queue.sleep_when_free = _LOOK_S  # noqa: SLF001  # there is no public way
    gr.mount_gradio_app(
        host,
        blocks,
        path,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=min(settings.max_body_bytes, _LONGEST_UPLOAD),
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=theme(),
    )
    return host


def build(settings: Settings, words: Words) -> gr.Blocks:
    """The pages of one language."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    shell = Shell(settings=settings, words=words)
    blocks = gr.Blocks(title="Darkroom", analytics_enabled=False, fill_width=True, delete_cache=(_CACHE_S, _CACHE_S))
    with blocks:
        gr.HTML("<h1>Darkroom</h1>", elem_classes="dk-unseen", js_on_load=None, apply_default_css=False)
        refresh = quick_settings(shell)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):  # a menu would take the other tabs' ids away
            for name, title, page in _PAGES:
                with gr.Tab(words(title), id=name, elem_id=f"tab-{name}"):
                    page(shell)
        shell.fill_on(blocks.load, refresh.click)
        recall(shell, blocks)
    return blocks
