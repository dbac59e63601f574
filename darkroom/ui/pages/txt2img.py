"""The page txt2img: pictures out of words."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from darkroom.api.models import Txt2Img
from darkroom.ui.parts import prompts, sampling
from darkroom.ui.parts.generating import generating
from darkroom.ui.parts.hires import hires
from darkroom.ui.parts.pasting import pasting
from darkroom.ui.parts.results import results
from darkroom.ui.parts.scripts import scripts
from darkroom.ui.parts.seeds import seeds
from darkroom.ui.parts.taking import taking
from darkroom.ui.requests import hires_fields, shared_fields
from darkroom.ui.shell import Shell

PAGE = "txt2img"
ROUTE = "/sdapi/v1/txt2img"


def build(shell: Shell) -> None:
    """Its controls, inside its tab."""
    form = shell.form(PAGE)
    head = prompts.head(shell, form, Txt2Img)
    with gr.Row(elem_classes="dk-body"):
        with gr.Column(min_width=320, elem_classes="dk-controls"):
            steps = sampling.sampler(shell, form, Txt2Img)
            hires(shell, form)
            sampling.refiner(shell, form, Txt2Img)
            sampling.size(shell, form, Txt2Img)
            sampling.guidance(shell, form, Txt2Img)
            seeds(shell, form, Txt2Img)
            sampling.finishing(shell, form, Txt2Img)
            scripts(form)
        with gr.Column(min_width=320):
            results(shell, PAGE, kind=PAGE)
    sampling.native_size(shell, form)
    prompts.count_tokens(form, steps)
    pasting(shell, form)
    taking(shell, form, Txt2Img)
    generating(shell, form, head.generate.click, route=ROUTE, make=request_of)


def request_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request that the controls stand for."""
    return {**shared_fields(fields), **hires_fields(fields)}
