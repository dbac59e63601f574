"""Places for pictures that people give: elements of our own scripts (`assets/painter.js`, `assets/pictures.js`).

What they hold stays in the browser until a handler asks for it by `gathering`.
"""

from html import escape

import gradio as gr


def picture_tab(page: str, part: str, title: str) -> gr.Tab:
    """One of a page's ways to give a picture. Its button has the `elem_id` `{page}-mode-{part}-button`."""
    return gr.Tab(title, id=part, elem_id=f"{page}-mode-{part}")


def picture(page: str, part: str, label: str, *, way: str = "plain", board: str = "") -> gr.HTML:
    """A place for one picture. Places with the same `board` show the same one; `way` says how it may be painted on:
    `plain` (not at all), `mask`, `sketch`, `inpaint_sketch`.
    """
    return _element("darkroom-picture", page, part, label, board=board or part, mode=way)


def pictures(page: str, part: str, label: str) -> gr.HTML:
    """A place for several pictures."""
    return _element("darkroom-pictures", page, part, label)


def _element(tag: str, page: str, part: str, label: str, **attributes: str) -> gr.HTML:
    given = {"data-page": page, "data-part": part, "label": label, **attributes}
    written = " ".join(f'{name}="{escape(value)}"' for name, value in given.items())
    return gr.HTML(
        f"<{tag} {written}></{tag}>",
        js_on_load=None,
        apply_default_css=False,
        elem_id=f"{page}-picture-{part}",
        min_width=280,
    )
