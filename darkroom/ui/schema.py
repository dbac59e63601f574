"""Controls made of the API's own fields: a control's label, help, default and range are the field's.

Knows pydantic models and Gradio's components; knows no page.
"""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic import BaseModel

from darkroom.ui.words import Words

Control = gr.Checkbox | gr.Dropdown | gr.Number | gr.Slider | gr.Textbox

Choices = Sequence[str | tuple[str, str]]
"""What there is to choose from: values, or labels with values."""

Kind = Literal["switch", "whole", "number", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A field as people see it. `low`, `high` and `step` are the usual range; None where any number will do."""

    name: str
    label: str
    help: str
    default: Any
    kind: Kind
    low: float | None = None
    high: float | None = None
    step: float | None = None


def describe(model: type[BaseModel], field: str) -> Described:
    """A field of a request. Raises KeyError for a name that the model does not have."""
    info = model.model_fields[field]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    usual = extra.get("x-usual") or {}
    assert isinstance(usual, dict)
    return Described(
        name=field,
        label=info.title or field.replace("_", " ").capitalize(),
        help=info.description or "",
        default=info.get_default(call_default_factory=True),
        kind=_kind(info.annotation),
        low=_number(usual.get("from")),
        high=_number(usual.get("to")),
        step=_number(usual.get("step")),
    )


def control(
    model: type[BaseModel],
    field: str,
    *,
    page: str,
    words: Words,
    choices: Sequence[str | tuple[str, str]] | None = None,
    **changes: Any,
) -> Control:
    """The control of a field, with `elem_id` `{page}-{field}`.

    `choices` makes it a list to choose from; `changes` are arguments of the component that win over the field's.
    """
    shown = describe(model, field)
    given: dict[str, Any] = {
        "label": words(shown.label),
        "info": words(shown.help) or None,
        "value": shown.default,
        "elem_id": f"{page}-{field}",
        **changes,
    }
    if choices is not None:
        return gr.Dropdown(choices=list(choices), **given)
    if shown.kind == "switch":
        return gr.Checkbox(**{**given, "value": bool(given["value"])})
    if shown.kind == "text":
        return gr.Textbox(**{**given, "value": given["value"] or ""})
    precision = 0 if shown.kind == "whole" else None
    low, high = given.pop("minimum", shown.low), given.pop("maximum", shown.high)
    step = given.pop("step", shown.step)
    if low is None or high is None:
        return gr.Number(precision=precision, step=step or 1, minimum=low, maximum=high, **given)
    return gr.Slider(minimum=low, maximum=high, step=step or (1 if precision == 0 else 0.01), **given)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def _kind(annotation: object) -> Kind:
    """What a field holds, whatever it is wrapped in."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return _kind(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is Literal:
        return "whole" if isinstance(get_args(annotation)[0], int) else "text"
    if annotation is bool:
        return "switch"
    if annotation is int:
        return "whole"
    return "number" if annotation is float else "text"
