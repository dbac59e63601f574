"""How a picture is drawn: sampler, steps, size, number, guidance, refiner, options for this request alone."""

import json
from typing import Any

import gradio as gr

from darkroom.api.models import Generation
from darkroom.sampling.names import SAMPLERS, SCHEDULERS
from darkroom.ui.parts.quick_settings import FORM as QUICK_FORM
from darkroom.ui.parts.tools import chooser, section, tool
from darkroom.ui.schema import Control
from darkroom.ui.shell import QUIET, Form, Shell

SAMPLER = "DPM++ 2M"
STEPS = 20


def sampler(shell: Shell, form: Form, model: type[Generation]) -> Control:
    """Sampler, schedule and steps; gives the steps."""
    with gr.Row():
        shell.control(form, model, "sampler_name", choices=[one.name for one in SAMPLERS], value=SAMPLER, min_width=140)
        shell.control(
            form, model, "scheduler", choices=[one.label for one in SCHEDULERS], value="Automatic", min_width=120
        )
        return shell.control(form, model, "steps", value=STEPS, scale=2, min_width=180)


def size(shell: Shell, form: Form, model: type[Generation]) -> None:
    """Width, height, a button that swaps them, and how many pictures."""
    _, page = shell.words, form.page
    with gr.Row(elem_classes="dk-size"):
        with gr.Column(scale=4, min_width=220):
            width = shell.control(form, model, "width")
            height = shell.control(form, model, "height")
        with gr.Column(scale=0, min_width=44, elem_classes="dk-middle"):
            swap = tool(_("Swap width and height"), "swap", elem_id=f"{page}-swap")
        with gr.Column(scale=4, min_width=220):
            shell.control(form, model, "n_iter")
            shell.control(form, model, "batch_size")
    swap.click(None, [width, height], [width, height], js="(width, height) => [height, width]", **QUIET)


def native_size(shell: Shell, form: Form) -> None:
    """Let width and height be those that the chosen checkpoint was made for, as long as nobody changes them."""
    sizes = gr.Textbox(visible=False, elem_id=f"{form.page}-native_sizes")
    shell.fill(sizes, lambda lists: json.dumps(lists.native_sizes))
    checkpoint = shell.form(QUICK_FORM).find("sd_model_checkpoint")
    sides = [form.find("width"), form.find("height")]
    script = f"(...values) => window.darkroom.nativeSize({form.page!r}, ...values)"
    shell.afterwards([sizes, checkpoint, *sides], sides, script)
    checkpoint.change(None, [sizes, checkpoint, *sides], sides, js=script, **QUIET)


def guidance(shell: Shell, form: Form, model: type[Generation], **changes: Any) -> None:
    """How strongly the prompt guides."""
    shell.control(form, model, "cfg_scale", **changes)


def refiner(shell: Shell, form: Form, model: type[Generation]) -> None:
    """A section for the checkpoint that goes on; the form's `refines` switches it."""
    _ = shell.words
    with section(form, "refines", _("Refiner")), gr.Row():
        chooser(shell, form, "refiner_checkpoint", _("Checkpoint"), lambda lists: lists.checkpoints, "", min_width=200)
        shell.control(form, model, "refiner_switch_at", value=0.8, min_width=160)


def finishing(shell: Shell, form: Form, model: type[Generation]) -> None:
    """Switches, and options for this request alone; the latter are the form's `overrides`."""
    _ = shell.words
    with gr.Row(elem_classes="dk-switches"):
        for name in ("restore_faces", "tiling", "save_images"):
            shell.control(form, model, name, min_width=120)
    form.add(
        "overrides",
        gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            allow_custom_value=True,
            label=_("Override settings"),
            info=_("Options for this request alone, such as eta_ddim: 0.5"),
            elem_id=f"{form.page}-override_settings",
        ),
    )
