"""What the parts of all pages share while they are put together: words, settings, what they load, where they land.

A page is a function of a `Shell`. Nothing of it outlives the building but the components themselves.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from pydantic import BaseModel

from darkroom.settings import Settings
from darkroom.ui.lists import Lists, read_lists
from darkroom.ui.schema import Choices, Control, control, describe
from darkroom.ui.service import Refused, Service, service
from darkroom.ui.words import Words

Fields = Mapping[str, Any]
"""What a form's controls hold, by the name that the form gave them."""

_LIMITS = {"steps": "max_steps", "width": "max_width", "height": "max_height", "batch_size": "max_batch_size"}
"""Settings that bound fields."""

Handler = Callable[[Service, Fields], Awaitable[Any]]


@dataclass(slots=True, kw_only=True)
class Form:
    """The controls of a page by the name of what they fill, in the order in which they were added."""

    page: str
    controls: dict[str, gr.components.Component] = field(default_factory=dict)

    def add(self, name: str, component: gr.components.Component) -> gr.components.Component:
        """Count a control in; gives it back."""
        self.controls[name] = component
        return component

    def find(self, name: str) -> Control:
        """One of the controls."""
        found = self.controls[name]
        assert isinstance(found, Control), f"{name} is a control"
        return found

    @property
    def components(self) -> list[gr.components.Component]:
        """The controls, for `inputs=` or `outputs=`."""
        return list(self.controls.values())

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The controls' values by name."""
        return dict(zip(self.controls, values, strict=True))

    def write(self, values: Mapping[str, Any]) -> list[Any]:
        """What to give the controls as `outputs`: those that are not named stay as they are."""
        return [values.get(name, gr.skip()) for name in self.controls]


@dataclass(slots=True, kw_only=True)
class Shell:
    """The pages of one language while they are built."""

    settings: Settings
    words: Words
    forms: dict[str, Form] = field(default_factory=dict)
    _filled: list[tuple[gr.components.Component, Callable[[Lists], Any]]] = field(default_factory=list)
    _afterwards: list[tuple[Sequence[Any], Sequence[Any], str]] = field(default_factory=list)

    def form(self, page: str) -> Form:
        """The form of a page; the same object for the same page."""
        return self.forms.setdefault(page, Form(page=page))

    def control(
        self,
        form: Form,
        model: type[BaseModel],
        name: str,
        *,
        choices: Choices | None = None,
        **changes: Any,
    ) -> Control:
        """The control of a request's field, counted in its page's form. Its range ends where the settings end it."""
        limit = _LIMITS.get(name)
        if limit and "maximum" not in changes and describe(model, name).high is not None:
            changes["maximum"] = getattr(self.settings, limit)
        made = control(model, name, page=form.page, words=self.words, choices=choices, **changes)
        form.add(name, made)
        return made

    def fill(self, component: gr.components.Component, make: Callable[[Lists], Any]) -> None:
        """Have a component filled when a page is opened or refreshed: `make` gives its update, from what the API lists.

        For choices: `shell.fill(box, lambda lists: gr.update(choices=lists.checkpoints))`.
        """
        self._filled.append((component, make))

    def afterwards(self, inputs: Sequence[Any], outputs: Sequence[Any], js: str) -> None:
        """Have a script run whenever the components have been filled."""
        self._afterwards.append((inputs, outputs, js))

    def fill_on(self, *triggers: Callable[..., Any]) -> None:
        """Fill all those components when one of these events comes. The app calls it once, behind the last page."""
        filled = list(self._filled)

        async def load(request: gr.Request) -> list[Any]:
            async with service(request) as api:
                lists = await read_lists(api)
            found = [make(lists) for _, make in filled]
            return found if len(found) != 1 else found[0]

        for trigger in triggers:
            event = trigger(load, None, [component for component, _ in filled], **QUIET)
            for inputs, outputs, js in self._afterwards:
                event.then(None, inputs, outputs, js=js)

    def act(
        self,
        trigger: Callable[..., Any],
        handler: Handler,
        *,
        form: Form,
        outputs: Sequence[Any] = (),
        also: Mapping[str, gr.components.Component] | None = None,
        js: str | None = None,
    ) -> Any:
        """Have an event of a page handled: `handler(api, fields)` gives the output's value, a list for several outputs.

        `also` are further components whose values `fields` holds. What the API refuses is shown beside the field.
        """
        inputs = {**form.controls, **(also or {})}
        names, several = list(inputs), len(outputs) > 1
        errors = self.outbox(form.page)

        async def handle(request: gr.Request, *values: Any) -> list[Any]:
            try:
                async with service(request) as api:
                    found = await handler(api, dict(zip(names, values, strict=True)))
            except Refused as refused:
                return [told(form.page, refused), *(gr.skip() for _ in outputs)]
            return [json.dumps({"page": form.page, "errors": []}), *(found if several else [found] * len(outputs))]

        event = trigger(handle, list(inputs.values()), [errors, *outputs], js=js, **QUIET)
        return event.then(None, [errors], None, js=TAKE)

    def outbox(self, page: str) -> gr.components.Component:
        """What handlers of a page tell the page's scripts: a JSON text that `window.darkroom.take` is given."""
        key = f"{page}-outbox"
        form = self.form(key)
        if key not in form.controls:
            form.add(key, gr.Textbox(visible=False, elem_id=key))
        return form.controls[key]


QUIET: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
}
"""How events of these pages run: at once, beside each other, without Gradio's own progress bar and API."""

TAKE = "(told) => window.darkroom.take(told)"
"""The script that is given what a handler put into the outbox."""


def told(page: str, refused: Refused) -> str:
    """What the page's scripts are told of a refusal."""
    errors = [{"field": error.field, "text": error.text} for error in refused.errors]
    return json.dumps({"page": page, "status": refused.status, "code": refused.code, "errors": errors})
