"""The page Checkpoint Merger: a request for `/models/merge`, done as a job."""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from darkroom.api.merge_request import FORMATS, NO_VAE, SOURCES, WAYS, Merge
from darkroom.ui.lists import Lists
from darkroom.ui.parts.generating import generating
from darkroom.ui.parts.results import results
from darkroom.ui.shell import Shell

PAGE = "merger"
_NONE = ""


def build(shell: Shell) -> None:
    """Its controls, inside its tab."""
    _, form = shell.words, shell.form(PAGE)
    with gr.Row():
        with gr.Column(scale=3):
            with gr.Row():
                for name in "abc":
                    parent = shell.control(form, Merge, name, choices=[_NONE], value=_NONE, min_width=200)
                    shell.fill(parent, _checkpoints)
            shell.control(form, Merge, "method", choices=list(WAYS))
            shell.control(form, Merge, "multiplier")
            shell.control(form, Merge, "name")
            with gr.Row():
                vae = shell.control(form, Merge, "vae", choices=[NO_VAE], min_width=160)
                shell.fill(vae, _autoencoders)
                shell.control(form, Merge, "dtype", choices=list(FORMATS), min_width=160)
                shell.control(form, Merge, "config_source", choices=list(SOURCES), min_width=160)
            with gr.Accordion(_("More"), open=False, elem_id=f"{PAGE}-more", elem_classes="dk-fold"):
                shell.control(form, Merge, "block_weights", lines=2)
                shell.control(form, Merge, "discard")
                with gr.Row():
                    for name in ("save_metadata", "add_recipe", "copy_metadata", "overwrite"):
                        shell.control(form, Merge, name, min_width=160)
                shell.control(form, Merge, "metadata", lines=2, placeholder='{"author": "..."}')
        with gr.Column(scale=2):
            button = gr.Button(_("Merge"), variant="primary", elem_id=f"{PAGE}-generate")
            results(shell, PAGE, kind="merge")
    generating(shell, form, button.click, route="/models/merge", make=request_of)


def request_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request that the controls stand for."""
    own = {name: value for name, value in fields.items() if name in Merge.model_fields and value is not None}
    return {**own, "metadata": _object(str(own.get("metadata", "")))}


def _object(text: str) -> Any:
    """What a text of JSON holds. What is none is sent as it is: the API says what is wrong with it."""
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return text


def _checkpoints(lists: Lists) -> Any:
    return gr.update(choices=[_NONE, *lists.checkpoints])


def _autoencoders(lists: Lists) -> Any:
    return gr.update(choices=[NO_VAE, *lists.vaes])
