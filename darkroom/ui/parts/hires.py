"""The section for hires fix: draw, enlarge, and draw again."""

import gradio as gr

from darkroom.api.models import Txt2Img
from darkroom.sampling.names import SAMPLERS, SCHEDULERS
from darkroom.ui.lists import Lists
from darkroom.ui.parts.tools import chooser, section
from darkroom.ui.requests import SAME_CHECKPOINT, SAME_SAMPLER, SAME_SCHEDULER
from darkroom.ui.schema import Choices, describe
from darkroom.ui.shell import Form, Shell

UPSCALER = "Latent"


def hires(shell: Shell, form: Form) -> None:
    """The form's `enable_hr` switches it."""
    _ = shell.words
    with section(form, "enable_hr", _(describe(Txt2Img, "enable_hr").label)):
        with gr.Row():
            chooser(shell, form, "hr_upscaler", _("Upscaler"), _upscalers, UPSCALER, min_width=140)
            shell.control(form, Txt2Img, "hr_second_pass_steps", min_width=140)
            shell.control(form, Txt2Img, "denoising_strength", value=0.7, min_width=140)
        with gr.Row():
            for name in ("hr_scale", "hr_resize_x", "hr_resize_y"):
                shell.control(form, Txt2Img, name, min_width=140)
        with gr.Accordion(_("Checkpoint, sampler and prompts of the second pass"), open=False):
            _second(shell, form)


def _second(shell: Shell, form: Form) -> None:
    _ = shell.words
    with gr.Row():
        chooser(
            shell, form, "hr_checkpoint_name", _("Hires checkpoint"), lambda lists: lists.checkpoints,
            (_(SAME_CHECKPOINT), SAME_CHECKPOINT), min_width=160,
        )  # fmt: skip
        samplers: Choices = [(_(SAME_SAMPLER), SAME_SAMPLER), *(one.name for one in SAMPLERS)]
        schedulers: Choices = [(_(SAME_SCHEDULER), SAME_SCHEDULER), *(one.label for one in SCHEDULERS)]
        shell.control(form, Txt2Img, "hr_sampler_name", choices=samplers, value=SAME_SAMPLER, min_width=160)
        shell.control(form, Txt2Img, "hr_scheduler", choices=schedulers, value=SAME_SCHEDULER, min_width=160)
    with gr.Row():
        shell.control(form, Txt2Img, "hr_prompt", lines=2, min_width=200, elem_classes="dk-prompt")
        shell.control(form, Txt2Img, "hr_negative_prompt", lines=2, min_width=200, elem_classes="dk-prompt")


def _upscalers(lists: Lists) -> list[str]:
    """A1111: the kinds of latents come first, the first of them the usual one."""
    return [name for name in (*lists.latent_modes, *lists.upscalers) if name != UPSCALER]
