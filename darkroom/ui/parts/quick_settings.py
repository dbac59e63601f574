"""The bar above all pages: checkpoint, autoencoder, CLIP skip.

What is chosen here goes with each request of this browser (`override_settings`) and changes nothing for anybody else.
The browser remembers it.
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from darkroom.ui.parts.corner import corner
from darkroom.ui.parts.tools import chooser, tool
from darkroom.ui.requests import SERVERS_CHOICE, chosen_options
from darkroom.ui.shell import QUIET, Shell

FORM = "quick"


def quick_settings(shell: Shell) -> gr.Button:
    """The bar; gives the button that reads the lists again."""
    _, form = shell.words, shell.form(FORM)
    servers = (_(SERVERS_CHOICE), SERVERS_CHOICE)
    with gr.Row(elem_id="quick"):
        chooser(
            shell, form, "sd_model_checkpoint", _("Checkpoint"), lambda lists: lists.checkpoints, servers,
            scale=3, min_width=180,
        )  # fmt: skip
        chooser(
            shell, form, "sd_vae", _("VAE"), lambda lists: ["Automatic", "None", *lists.vaes], servers,
            scale=2, min_width=140,
        )  # fmt: skip
        skip = gr.Slider(
            0, 12, value=0, step=1, label=_("CLIP skip"),
            info=_("Layers of the text encoder; 0 is the server's choice."),
            elem_id="quick-CLIP_stop_at_last_layers", scale=2, min_width=140,
        )  # fmt: skip
        form.add("CLIP_stop_at_last_layers", skip)
        refresh = tool(_("Read the lists again"), "refresh", elem_id="quick-refresh")
        corner(shell)
    script = "(...values) => window.darkroom.remember('quick', values)"
    for control in map(form.find, form.controls):
        control.change(None, form.components, None, js=script, **QUIET)
    return refresh


def recall(shell: Shell, blocks: gr.Blocks) -> None:
    """Put back what this browser had chosen, when a page is opened."""
    components = shell.form(FORM).components
    script = "async (...values) => (await window.darkroomReady, window.darkroom.recall('quick', values))"
    blocks.load(None, components, components, js=script, **QUIET)


def chosen(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The `override_settings` for what stands in the bar."""
    return chosen_options(fields)
