"""The way from a button to a job: the page's controls become a request, the request is promised, a card follows it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from darkroom.ui.parts.gathering import GATHERED, gathering
from darkroom.ui.parts.quick_settings import FORM as QUICK
from darkroom.ui.service import Refused, service
from darkroom.ui.shell import QUIET, TAKE, Form, Shell, told

Make = Callable[[Mapping[str, Any]], dict[str, Any] | list[dict[str, Any]]]
"""Makes a request's JSON of the controls' values, which also hold those of the bar of quick settings; or several
requests, each of which becomes a job. Raises Refused.
"""

_LONG_TEXT = 10_000
"""Characters above which a text of a request is a picture, which its card need not be told."""


def generating(shell: Shell, form: Form, trigger: Callable[..., Any], *, route: str, make: Make) -> None:
    """Have an event of the page (`button.click`) make requests of its form, and follow the jobs that come of them."""
    inputs = {**shell.form(QUICK).controls, **form.controls}
    names, outbox = list(inputs), shell.outbox(form.page)

    async def generate(request: gr.Request, *values: Any) -> str:
        jobs: list[dict[str, Any]] = []
        try:
            made = make(dict(zip(names, values, strict=True)))
            async with service(request) as api:
                for body in made if isinstance(made, list) else [made]:
                    job = await api.submit(route, body)
                    jobs.append({"job": job, "route": route, "request": _without_pictures(body)})
        except Refused as refused:
            return json.dumps({**json.loads(told(form.page, refused)), "jobs": jobs})
        return json.dumps({"page": form.page, "errors": [], "jobs": jobs})

    js = gathering(form.page, names) if GATHERED in names else None
    trigger(generate, list(inputs.values()), [outbox], js=js, **QUIET).then(None, [outbox], None, js=TAKE)


def _without_pictures(value: Any) -> Any:
    """A request in which pictures are only mentioned."""
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        return f"<base64, {len(value)} characters>"
    if isinstance(value, dict):
        return {name: _without_pictures(one) for name, one in value.items()}
    return [_without_pictures(one) for one in value] if isinstance(value, list) else value
