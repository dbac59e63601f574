"""The head of txt2img and img2img: both prompts, the buttons that begin and stop, styles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from darkroom.api.models import Generation
from darkroom.ui.parts.tools import tool
from darkroom.ui.requests import with_styles
from darkroom.ui.schema import Control
from darkroom.ui.service import Service
from darkroom.ui.shell import QUIET, Form, Shell

_LAST = "(...values) => window.darkroom.readParameters({page!r}, values[0])"
_CLEAR = "(...values) => window.darkroom.confirmed('Delete prompt?') ? ['', ''] : values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the rest of a page needs of its head."""

    generate: gr.Button
    prompt: Control
    negative_prompt: Control


def head(shell: Shell, form: Form, model: type[Generation]) -> Head:
    """Prompts on the left, buttons on the right."""
    page = form.page
    with gr.Row(elem_classes="dk-head"):
        with gr.Column(scale=6, min_width=280, elem_classes="dk-prompts"):
            prompt = shell.control(form, model, "prompt", lines=3, max_lines=20, elem_classes="dk-prompt")
            negative = shell.control(form, model, "negative_prompt", lines=3, max_lines=20, elem_classes="dk-prompt")
        with gr.Column(scale=1, min_width=220, elem_classes="dk-actions"):
            generate = _beginning(shell, page)
            _tools(shell, form, prompt, negative)
    return Head(generate=generate, prompt=prompt, negative_prompt=negative)


def count_tokens(form: Form, steps: Control) -> None:
    """Have the prompts' tokens counted whenever something changes that they depend on."""
    counted = [form.find(name) for name in ("prompt", "negative_prompt", "styles")] + [steps]
    script = f"(...values) => window.darkroom.countTokens({form.page!r}, values)"
    for one in counted:
        one.change(None, counted, None, js=script, **QUIET)


def _beginning(shell: Shell, page: str) -> gr.Button:
    _ = shell.words
    generate = gr.Button(_("Generate"), variant="primary", elem_id=f"{page}-generate", elem_classes="dk-generate")
    with gr.Row(elem_classes="dk-stops"):
        interrupt = gr.Button(_("Interrupt"), elem_id=f"{page}-interrupt", size="sm", min_width=80)
        skip = gr.Button(_("Skip"), elem_id=f"{page}-skip", size="sm", min_width=80)
    interrupt.click(None, None, None, js=f"() => window.darkroom.stopNewest({page!r}, 'interrupt')", **QUIET)
    skip.click(None, None, None, js=f"() => window.darkroom.stopNewest({page!r}, 'skip')", **QUIET)
    return generate


def _tools(shell: Shell, form: Form, prompt: Control, negative: Control) -> None:
    _, page = shell.words, form.page
    with gr.Row(elem_classes="dk-tools"):
        read = tool(
            _("Read generation parameters from the prompt, or from the last picture"), "read", elem_id=f"{page}-read"
        )
        clear = tool(_("Clear both prompts"), "clear", elem_id=f"{page}-clear")
        apply = tool(_("Put the styles into the prompts"), "apply", elem_id=f"{page}-apply-styles")
        edit = tool(_("Edit styles"), "edit", elem_id=f"{page}-edit-styles")
    styles = gr.Dropdown(
        [], value=[], multiselect=True, label=_("Styles"), elem_id=f"{page}-styles", allow_custom_value=True
    )
    form.add("styles", styles)
    shell.fill(styles, lambda lists: gr.update(choices=lists.styles))
    read.click(None, [prompt], None, js=_LAST.format(page=page), **QUIET)
    clear.click(None, [prompt, negative], [prompt, negative], js=_CLEAR, **QUIET)
    edit.click(
        None, [prompt, negative], None, js=f"(...values) => window.darkroom.editStyles({page!r}, values)", **QUIET
    )
    shell.act(apply.click, _apply_styles, form=form, outputs=[prompt, negative, styles])


async def _apply_styles(api: Service, fields: Mapping[str, Any]) -> list[Any]:
    known = {style["name"]: style for style in await api.get("/sdapi/v1/prompt-styles")}
    chosen = [known[name] for name in fields["styles"] or () if name in known]
    texts = [
        with_styles(fields[field] or "", [style[field] for style in chosen]) for field in ("prompt", "negative_prompt")
    ]
    return [*texts, []]
