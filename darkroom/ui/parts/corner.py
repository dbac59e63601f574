"""The corner beside the bar: colours and language."""

import html

import gradio as gr

from darkroom.ui.shell import Shell
from darkroom.ui.words import languages

_NAMES = {"en": "English", "zh": "中文", "de": "Deutsch", "fr": "Français", "ja": "日本語", "es": "Español"}


def corner(shell: Shell) -> gr.HTML:
    """A button for dark and light, and a link for each other language."""
    _ = shell.words
    label = html.escape(_("Dark or light"))
    button = f'<button type="button" class="dk-tool dk-sign-theme" id="theme-toggle">{label}</button>'
    links = [
        f'<a href="?lang={name}" lang="{name}" hreflang="{name}">{_NAMES.get(name, name)}</a>'
        for name in languages()
        if name != _.language
    ]
    return gr.HTML(
        f'<div class="dk-corner">{"".join(links)}{button}</div>',
        elem_id="corner",
        js_on_load=None,
        apply_default_css=False,
        min_width=36,
    )
