"""The page Extras: finished pictures are enlarged, and faces in them restored."""

from typing import Any

import gradio as gr

from darkroom.api.models import Extras, ExtrasSingle
from darkroom.ui.parts.gathering import gathered, gathered_by
from darkroom.ui.parts.generating import generating
from darkroom.ui.parts.pictures import picture, picture_tab, pictures
from darkroom.ui.parts.results import results
from darkroom.ui.parts.tools import chooser
from darkroom.ui.schema import describe
from darkroom.ui.shell import QUIET, Fields, Form, Shell
from darkroom.ui.starting import BATCH, SINGLE, pictures_of

PAGE = "extras"
ROUTE = "/sdapi/v1/extra-single-image"
NONE = "None"

_FACTOR, _SIZE = 0, 1
_BY_SIZE = ("upscaling_resize_w", "upscaling_resize_h", "upscaling_crop")
_SHOW_HALF = "(mode) => [0, 1].map((one) => ({ __type__: 'update', visible: Number(mode) === one }))"


def build(shell: Shell) -> None:
    """Its controls, inside its tab."""
    _, form = shell.words, shell.form(PAGE)
    gathered_by(form)
    with gr.Row(elem_classes="dk-body"):
        with gr.Column(min_width=320, elem_classes="dk-controls"):
            with gr.Tabs(elem_id=f"{PAGE}-image", overflow_behavior="wrap"):
                with picture_tab(PAGE, SINGLE, _("Single picture")):
                    picture(PAGE, SINGLE, _("Picture"), board=PAGE)
                with picture_tab(PAGE, BATCH, _("Batch")):
                    pictures(PAGE, BATCH, _("Pictures, each a job of its own"))
            button = gr.Button(_("Generate"), variant="primary", elem_id=f"{PAGE}-generate", elem_classes="dk-generate")
            _size(shell, form)
            _upscalers(shell, form)
            _faces(shell, form)
        with gr.Column(min_width=320):
            results(shell, PAGE, kind=PAGE)
    generating(shell, form, button.click, route=ROUTE, make=requests_of)


def requests_of(fields: Fields) -> list[dict[str, Any]]:
    """The requests that the controls stand for, one for each picture. Raises Refused."""
    known = {name: value for name, value in fields.items() if name in Extras.model_fields and value is not None}
    if known.get("resize_mode") == _SIZE:
        known.pop("upscaling_resize", None)
    else:
        known = {name: value for name, value in known.items() if name not in _BY_SIZE}
    if known.get("upscaler_2") == NONE:
        known.pop("extras_upscaler_2_visibility", None)
    if not known.get("codeformer_visibility"):
        known.pop("codeformer_weight", None)
    chosen = pictures_of(gathered(fields).get("pictures", {}), (SINGLE, BATCH), field="image")
    return [{"image": one["image"], **known} for one in chosen]


def _size(shell: Shell, form: Form) -> None:
    _ = shell.words
    label = _(describe(Extras, "resize_mode").label)
    mode = gr.Radio(
        [(_("Scale by"), _FACTOR), (_("Scale to"), _SIZE)], value=_FACTOR, label=label, elem_id=f"{PAGE}-resize_mode"
    )
    form.add("resize_mode", mode)
    with gr.Group() as by:
        shell.control(form, ExtrasSingle, "upscaling_resize", value=4)
    with gr.Group(visible=False) as to, gr.Row():
        for name in _BY_SIZE:
            shell.control(form, ExtrasSingle, name, min_width=120)
    mode.change(None, [mode], [by, to], js=_SHOW_HALF, **QUIET)


def _upscalers(shell: Shell, form: Form) -> None:
    with gr.Row():
        for name in ("upscaler_1", "upscaler_2"):
            label = shell.words(describe(Extras, name).label)
            chooser(
                shell, form, name, label, lambda lists: [one for one in lists.upscalers if one != NONE], NONE,
                min_width=140,
            )  # fmt: skip
    shell.control(form, ExtrasSingle, "extras_upscaler_2_visibility")


def _faces(shell: Shell, form: Form) -> None:
    shell.control(form, ExtrasSingle, "gfpgan_visibility")
    with gr.Row():
        for name in ("codeformer_visibility", "codeformer_weight"):
            shell.control(form, ExtrasSingle, name, min_width=200)
