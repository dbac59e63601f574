"""The way from a page's scripts to a handler: a component that nobody sees and that scripts post to."""

import gradio as gr


def mailbox(name: str) -> gr.HTML:
    """A component whose event `submit` comes when a script calls `window.darkroom.post(name, {...})`.

    The handler gets the message as a `gr.EventData`: `event.text` for `{text: ...}`.
    """
    register = f"window.darkroomReady.then(() => window.darkroom.mailbox({name!r}, trigger))"
    return gr.HTML("", js_on_load=register, elem_id=f"mailbox-{name}", visible="hidden")
