"""Small building blocks of the pages: buttons with a sign, sections that a switch unfolds, lists to choose from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from darkroom.ui.lists import Lists
from darkroom.ui.shell import QUIET, Form, Shell

SHOW = "(on) => ({ __type__: 'update', visible: Boolean(on) })"
"""The script that shows a section while its switch is on."""


def tool(label: str, sign: str, *, elem_id: str) -> gr.Button:
    """A button that shows a sign of `darkroom.css` (`dk-sign-{sign}`) and is called by its label."""
    return gr.Button(
        label, elem_id=elem_id, elem_classes=["dk-tool", f"dk-sign-{sign}"], size="sm", min_width=36, scale=0
    )


@contextmanager
def section(form: Form, name: str, label: str, info: str | None = None) -> Iterator[None]:
    """Controls that are shown while a switch is on; the switch is the form's `name`."""
    with gr.Group(elem_classes="dk-fold", elem_id=f"{form.page}-{name}-section"):
        switch = gr.Checkbox(False, label=label, info=info, elem_id=f"{form.page}-{name}", elem_classes="dk-switch")
        with gr.Column(visible=False, elem_classes="dk-fold-body") as body:
            yield
    form.add(name, switch)
    switch.change(None, [switch], [body], js=SHOW, **QUIET)


def chooser(
    shell: Shell,
    form: Form,
    name: str,
    label: str,
    listed: Callable[[Lists], list[str]],
    first: str | tuple[str, str],
    **given: Any,
) -> gr.Dropdown:
    """A list that is filled when the page opens; `first`, or its label and value, is a choice before all others.

    A name that is not listed may be typed: whether it means anything is the API's business.
    """
    begin = [first if isinstance(first, tuple) else (first, first)] if first else []
    made = gr.Dropdown(
        choices=begin,
        value=begin[0][1] if begin else None,
        label=label,
        elem_id=f"{form.page}-{name}",
        allow_custom_value=True,
        **given,
    )
    form.add(name, made)
    shell.fill(made, lambda lists: gr.update(choices=[*begin, *((name, name) for name in listed(lists))]))
    return made
