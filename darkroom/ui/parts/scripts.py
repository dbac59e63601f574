"""The section for scripts: what the API tells of them becomes panels in the browser."""

import gradio as gr

from darkroom.ui.parts.gathering import gathered_by
from darkroom.ui.shell import Form


def scripts(form: Form) -> gr.HTML:
    """The scripts of a page (txt2img, img2img). Requests name them by `gathering.script_fields`."""
    gathered_by(form)
    return gr.HTML(
        f'<darkroom-scripts data-page="{form.page}"></darkroom-scripts>',
        elem_id=f"{form.page}-scripts",
        js_on_load=None,
        apply_default_css=False,
    )
