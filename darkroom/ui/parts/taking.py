"""Fields of a request that come from outside the page, such as those in its address: they fill its controls."""

import json
from typing import Any

import gradio as gr
from pydantic import ValidationError

from darkroom.api.models import Generation
from darkroom.ui.parts.mailbox import mailbox
from darkroom.ui.requests import controls_of
from darkroom.ui.shell import QUIET, TAKE, Form, Shell


def taking(shell: Shell, form: Form, model: type[Generation]) -> None:
    """Have what scripts post to `{page}-take` as `{fields: {name: value}}` put into the page's controls."""
    box, errors = mailbox(f"{form.page}-take"), shell.outbox(form.page)

    def take(event: gr.EventData) -> list[Any]:
        sent = event._data or {}  # noqa: SLF001  Gradio's only way to all that was posted
        fields, wrong = read_fields(sent.get("fields") or {}, model)
        told = json.dumps({"page": form.page, "errors": wrong})
        return [told, *form.write(controls_of(fields))]

    box.submit(take, None, [errors, *form.components], **QUIET).then(None, [errors], None, js=TAKE)


def read_fields(sent: dict[str, Any], model: type[Generation]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The fields of a request as the API would read them, and what is wrong with the others, in words."""
    known = {name: _parsed(value) for name, value in sent.items() if name in model.model_fields}
    wrong: list[dict[str, str]] = []
    try:
        read = model.model_validate(known)
    except ValidationError as error:
        wrong = [{"field": str(one["loc"][0]), "text": one["msg"]} for one in error.errors(include_url=False)]
        named = {one["field"] for one in wrong}
        read = model.model_validate({name: value for name, value in known.items() if name not in named})
    return {name: getattr(read, name) for name in read.model_fields_set}, wrong


def _parsed(value: object) -> object:
    """Lists and objects are JSON in an address."""
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
