"""The page img2img: a picture to begin with, whole, painted on, or to be made anew under a mask."""

from typing import Any

import gradio as gr

from darkroom.api.models import Img2Img
from darkroom.ui.generation_text import MASKED_CONTENT
from darkroom.ui.parts import prompts, sampling
from darkroom.ui.parts.gathering import gathered, gathering
from darkroom.ui.parts.generating import generating
from darkroom.ui.parts.pasting import pasting
from darkroom.ui.parts.pictures import picture, picture_tab, pictures
from darkroom.ui.parts.results import results
from darkroom.ui.parts.scripts import scripts
from darkroom.ui.parts.seeds import seeds
from darkroom.ui.parts.tools import SHOW
from darkroom.ui.requests import shared_fields
from darkroom.ui.schema import describe
from darkroom.ui.service import FieldError, Refused, Service
from darkroom.ui.shell import QUIET, Fields, Form, Shell
from darkroom.ui.starting import (
    BATCH,
    INPAINT,
    INPAINT_SKETCH,
    PLAIN,
    SKETCH,
    UPLOAD,
    UPLOADED_MASK,
    start_of,
    without_masks,
)

PAGE = "img2img"
ROUTE = "/sdapi/v1/img2img"

_RESIZE_MODES = (
    "Just resize",
    "Crop and resize",
    "Resize and fill",
    "Just resize (latent upscale)",
)
_FIT = f"(...size) => window.darkroom.sizeOf('{PAGE}', size)"
_TABS = (
    (PLAIN, "img2img", "plain"),
    (SKETCH, "Sketch", "sketch"),
    (INPAINT, "Inpaint", "mask"),
    (INPAINT_SKETCH, "Inpaint sketch", "inpaint_sketch"),
)
"""Name, title and way of painting of the tabs with one picture, which is the same in all of them."""


def build(shell: Shell) -> None:
    """Its controls, inside its tab."""
    form = shell.form(PAGE)
    head = prompts.head(shell, form, Img2Img)
    with gr.Row(elem_classes="dk-body"):
        with gr.Column(min_width=320, elem_classes="dk-controls"):
            _pictures(shell)
            _inpainting(shell, form)
            describers = _describers(shell)
            fit = _resizing(shell, form)
            steps = sampling.sampler(shell, form, Img2Img)
            sampling.refiner(shell, form, Img2Img)
            sampling.size(shell, form, Img2Img)
            sampling.guidance(shell, form, Img2Img)
            shell.control(form, Img2Img, "denoising_strength")
            seeds(shell, form, Img2Img)
            sampling.finishing(shell, form, Img2Img)
            scripts(form)
        with gr.Column(min_width=320):
            results(shell, PAGE, kind=PAGE)
    sides = [form.controls["width"], form.controls["height"]]
    fit.click(None, sides, sides, js=_FIT, **QUIET)
    prompts.count_tokens(form, steps)
    for model, describer in describers.items():
        _describe(shell, form, describer, model)
    pasting(shell, form)
    generating(shell, form, head.generate.click, route=ROUTE, make=requests_of)


def requests_of(fields: Fields) -> list[dict[str, Any]]:
    """The requests that the controls stand for: one, or one for each picture of a batch. Raises Refused."""
    own = {name: fields[name] for name in ("denoising_strength", "resize_mode") if fields.get(name) is not None}
    starts = start_of(fields, gathered(fields).get("pictures", {}))
    return [{**shared_fields(fields), **own, **start} for start in starts]


def _pictures(shell: Shell) -> None:
    _ = shell.words
    with gr.Tabs(elem_id=f"{PAGE}-init_images", overflow_behavior="wrap"):
        for part, title, way in _TABS:
            with picture_tab(PAGE, part, _(title)):
                picture(PAGE, part, _("Picture"), way=way, board=PAGE)
        with picture_tab(PAGE, UPLOAD, _("Inpaint upload")), gr.Row():
            picture(PAGE, UPLOAD, _("Picture"), board=PAGE)
            picture(PAGE, UPLOADED_MASK, _("Mask: white is made anew"))
        with picture_tab(PAGE, BATCH, _("Batch")):
            pictures(PAGE, BATCH, _("Pictures, each a job of its own"))


def _inpainting(shell: Shell, form: Form) -> None:
    """What counts where there is a mask; the styles show it under the tabs that have one."""
    with gr.Column(elem_id=f"{PAGE}-mask"):
        shell.control(form, Img2Img, "mask_blur", value=4, minimum=0, maximum=64, step=1)
        with gr.Row():
            _choice(shell, form, "inpainting_mask_invert", ("Inpaint masked", "Inpaint not masked"))
            _choice(shell, form, "inpaint_full_res", ("Whole picture", "Only masked"))
        _choice(shell, form, "inpainting_fill", MASKED_CONTENT, value=1)
        shell.control(form, Img2Img, "inpaint_full_res_padding", value=32, minimum=0, maximum=256, step=4)


def _describers(shell: Shell) -> dict[str, gr.Button]:
    """Buttons that have the picture described, by the network that does it."""
    _ = shell.words
    with gr.Row(elem_id=f"{PAGE}-interrogate"):
        return {
            "clip": gr.Button(_("Interrogate CLIP"), elem_id=f"{PAGE}-interrogate-clip", size="sm"),
            "deepdanbooru": gr.Button(_("Interrogate DeepBooru"), elem_id=f"{PAGE}-interrogate-deepbooru", size="sm"),
        }


def _resizing(shell: Shell, form: Form) -> gr.Button:
    """How the picture becomes as large as what is drawn; gives the button that takes over its size."""
    _ = shell.words
    _choice(shell, form, "resize_mode", _RESIZE_MODES)
    with gr.Row():
        by = gr.Checkbox(False, label=_("Resize by a factor"), elem_id=f"{PAGE}-resize_by", min_width=140)
        fit = gr.Button(_("Take the picture's size"), elem_id=f"{PAGE}-fit", size="sm", min_width=140)
        scale = gr.Slider(
            0.05, 4, 1, step=0.05, label=_("Scale"), info=_("Width and height, as parts of the picture's own"),
            visible=False, elem_id=f"{PAGE}-resize_scale", min_width=200,
        )  # fmt: skip
    form.add("resize_by", by)
    form.add("resize_scale", scale)
    by.change(None, [by], [scale], js=SHOW, **QUIET)
    return fit


def _choice(shell: Shell, form: Form, name: str, words: tuple[str, ...], *, value: int = 0) -> None:
    """A field whose numbers have names."""
    _ = shell.words
    choices = [(_(word), place) for place, word in enumerate(words)]
    label = _(describe(Img2Img, name).label)
    form.add(name, gr.Radio(choices, value=value, label=label, elem_id=f"{PAGE}-{name}", min_width=200))


def _describe(shell: Shell, form: Form, button: gr.Button, model: str) -> None:
    """Have a button put what a network says of the picture into the prompt."""
    names = list(form.controls)

    async def describe_picture(api: Service, fields: Fields) -> str:
        start = start_of({}, without_masks(gathered(fields).get("pictures", {})))[0]
        try:
            answer = await api.post("/sdapi/v1/interrogate", {"image": start["init_images"][0], "model": model})
        except Refused as refused:  # its words belong beside the buttons
            raise Refused(refused.status, refused.code, (FieldError(field="interrogate", text=str(refused)),)) from None
        return str(answer["caption"])

    shell.act(button.click, describe_picture, form=form, outputs=[form.controls["prompt"]], js=gathering(PAGE, names))
