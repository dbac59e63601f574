"""The way from a generation text to a page's controls."""

import json
from typing import Any

import gradio as gr

from darkroom.ui.generation_text import Page, fields_of, text_as_picture
from darkroom.ui.parts.mailbox import mailbox
from darkroom.ui.requests import controls_of
from darkroom.ui.service import Refused, Service, service
from darkroom.ui.shell import QUIET, TAKE, Form, Shell, told

_OF_SCRIPTS = ("script_name", "script_args", "alwayson_scripts")


def pasting(shell: Shell, form: Form) -> None:
    """Have the page's controls filled when a script calls `window.darkroom.post("{page}-paste", {text})`."""
    page: Page = "img2img" if form.page == "img2img" else "txt2img"
    outbox = shell.outbox(form.page)

    async def paste(request: gr.Request, event: gr.EventData) -> list[Any]:
        try:
            async with service(request) as api:
                fields = await read(api, str(event.text), page)
        except Refused as refused:
            return [told(form.page, refused), *form.write({})]
        said = {"page": form.page, "errors": [], "scripts": {name: fields.get(name) for name in _OF_SCRIPTS}}
        return [json.dumps(said), *form.write(controls_of(fields))]

    event = mailbox(f"{form.page}-paste").submit(paste, None, [outbox, *form.components], **QUIET)
    event.then(None, [outbox], None, js=TAKE)


async def read(api: Service, text: str, page: Page) -> dict[str, Any]:
    """The request that a generation text tells of, as the API reads it. Raises Refused."""
    found = await api.post("/sdapi/v1/png-info", {"image": text_as_picture(text)})
    options = await api.get("/sdapi/v1/options")
    return fields_of(found["parameters"], page, options)
