"""The page Models: what there is of every kind. See `assets/models.js`.

What it puts into a prompt comes here, for the prompts are controls of other pages.
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from darkroom.ui.parts.mailbox import mailbox
from darkroom.ui.parts.own_element import own_element
from darkroom.ui.shell import QUIET, Shell

_PAGES = ("txt2img", "img2img")
_PARTS = ("prompt", "negative_prompt")


def build(shell: Shell) -> None:
    """Its element, inside its tab."""
    own_element("models")
    places = [(page, part) for page in _PAGES for part in _PARTS if part in shell.form(page).controls]
    prompts = [shell.form(page).controls[part] for page, part in places]

    def insert(event: gr.EventData, *texts: str) -> list[Any]:
        wanted = {name: getattr(event, name, "") for name in ("to", "where", "text")}
        return inserted(wanted, dict(zip(places, texts, strict=True)))

    if prompts:
        mailbox("models-insert").submit(insert, prompts, prompts, **QUIET)


def inserted(wanted: Mapping[str, str], texts: Mapping[tuple[str, str], str]) -> list[Any]:
    """The prompts, by page and part, once one of them holds `wanted["text"]`; the others stay as they are."""
    return [
        _joined(text, wanted["text"]) if place == (wanted["to"], wanted["where"]) else gr.skip()
        for place, text in texts.items()
    ]


def _joined(prompt: str, text: str) -> str:
    """A text behind a prompt, unless it is there already."""
    if not prompt or text in prompt:
        return prompt or text
    return f"{prompt.rstrip()} {text}"
