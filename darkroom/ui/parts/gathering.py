"""The way from a page's own elements (pictures, scripts) to its handlers: one JSON text that the page's scripts make.

Pictures come as base64 in that text and are kept nowhere.
"""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from darkroom.ui.shell import Form

GATHERED = "gathered"


def gathered_by(form: Form) -> gr.components.Component:
    """The control that holds what was gathered, counted in the form; nobody sees it."""
    if GATHERED not in form.controls:
        form.add(GATHERED, gr.Textbox(visible=False, elem_id=f"{form.page}-{GATHERED}"))
    return form.controls[GATHERED]


def gathering(page: str, names: list[str]) -> str:
    """The script for an event with inputs of these names: it puts in what the page's elements hold."""
    place, count = names.index(GATHERED), len(names)
    return f"(...values) => window.darkroom.withGathered({json.dumps(page)}, {place}, {count}, values)"


def gathered(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a page's elements hold; empty where they were never on show."""
    found = json.loads(fields.get(GATHERED) or "{}")
    return found if isinstance(found, dict) else {}


def script_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a request that names scripts; empty for none."""
    found = gathered(fields).get("scripts") or {}
    return {name: value for name, value in found.items() if value}
