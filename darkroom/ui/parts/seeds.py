"""The seed of a picture, and variations of it."""

import gradio as gr

from darkroom.api.models import Generation
from darkroom.ui.parts.tools import section, tool
from darkroom.ui.schema import Control
from darkroom.ui.shell import QUIET, Form, Shell


def seeds(shell: Shell, form: Form, model: type[Generation]) -> None:
    """The seed with its two buttons, and the section Extra, which the form's `variation` switches."""
    _, page = shell.words, form.page
    with gr.Row(elem_classes="dk-seed"):
        seed = shell.control(form, model, "seed", min_width=160, scale=4)
        random = tool(_("Random seed"), "dice", elem_id=f"{page}-random-seed")
        reuse = tool(_("Reuse the last seed"), "reuse", elem_id=f"{page}-reuse-seed")
    _buttons(seed, random, reuse, page, "seed")
    with section(form, "variation", _("Extra")):
        with gr.Row(elem_classes="dk-seed"):
            subseed = shell.control(form, model, "subseed", min_width=160, scale=3)
            random = tool(_("Random variation seed"), "dice", elem_id=f"{page}-random-subseed")
            reuse = tool(_("Reuse the last variation seed"), "reuse", elem_id=f"{page}-reuse-subseed")
            shell.control(form, model, "subseed_strength", min_width=160, scale=3)
        with gr.Row():
            shell.control(form, model, "seed_resize_from_w", value=0)
            shell.control(form, model, "seed_resize_from_h", value=0)
    _buttons(subseed, random, reuse, page, "subseed")


def _buttons(seed: Control, random: gr.Button, reuse: gr.Button, page: str, name: str) -> None:
    random.click(None, None, [seed], js="() => -1", **QUIET)
    reuse.click(None, [seed], [seed], js=f"(now) => window.darkroom.lastSeed({page!r}, {name!r}, now)", **QUIET)
