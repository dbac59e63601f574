"""A page that is an element of our own scripts: it speaks to the API by itself and is loaded when it is first seen."""

import gradio as gr


def own_element(name: str) -> gr.HTML:
    """`<darkroom-NAME>`, which `assets/library.js` defines, in a place with `elem_id` NAME."""
    element = f"<darkroom-{name}></darkroom-{name}>"
    return gr.HTML(element, elem_id=name, js_on_load=None, apply_default_css=False)
