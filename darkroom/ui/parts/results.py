"""Where what was made is shown: a list of cards that the page's scripts fill and follow."""

import html

import gradio as gr

from darkroom.ui.shell import Shell


def results(shell: Shell, page: str, *, kind: str) -> gr.HTML:
    """The cards of a page. `kind` is the jobs' kind (`txt2img`, ...), whose running jobs a reload takes up again."""
    label = html.escape(shell.words("Results"))
    names = f'id="{page}-results" data-page="{page}" data-kind="{kind}" aria-label="{label}"'
    return gr.HTML(
        f'<section class="dk-results dr-page" {names}></section>',
        js_on_load="window.darkroomReady.then(() => window.darkroom.results(element.querySelector('.dk-results')))",
        elem_id=f"{page}-results-box",
        apply_default_css=False,
    )
