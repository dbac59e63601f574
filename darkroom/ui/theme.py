"""How the pages look, as far as Gradio decides it: system fonts, one accent colour. The rest is in `darkroom.css`."""

import gradio as gr
from gradio.themes.utils import sizes

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif")
_MONO = ("ui-monospace", "Cascadia Mono", "Noto Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Loads nothing from elsewhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.amber,
        secondary_hue=gr.themes.colors.amber,
        neutral_hue=gr.themes.colors.zinc,
        spacing_size=sizes.spacing_sm,
        radius_size=sizes.radius_sm,
        text_size=sizes.text_sm,
        font=_SANS,
        font_mono=_MONO,
    ).set(  # Gradio's own are too pale: WCAG 2.2 wants a contrast of 4.5 for texts (1.4.3), of 3 for controls (1.4.11)
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        checkbox_border_color_hover="*neutral_700",
        checkbox_border_color_hover_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover="*primary_400",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="*neutral_950",
        button_primary_text_color_dark="*neutral_950",
        link_text_color="*primary_800",
        link_text_color_hover="*primary_900",
        link_text_color_visited="*primary_800",
    )
