"""The page PNG Info: what a picture's file says of how it was made, and the way from there to the other pages."""

import gradio as gr

from darkroom.ui.shell import Shell

PAGE = "png_info"


def build(_: Shell) -> None:
    """An element of our own scripts, which asks the API by itself (`assets/png_info.js`)."""
    gr.HTML("<darkroom-png-info></darkroom-png-info>", elem_id=PAGE, js_on_load=None, apply_default_css=False)
