"""`/options`: what options there are and what each decides, for whoever shows them to people. Changes none."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from darkroom.api.context import Shared
from darkroom.options.freezing import Freezing
from darkroom.options.kinds import Option, Value
from darkroom.options.table import SECTIONS
from darkroom.options.values import STEERING

router = APIRouter(prefix="/options", tags=["options"])


class OptionDocument(BaseModel):
    """An option."""

    name: str = Field(description="Its name in /sdapi/v1/options.")
    about: str = Field(description="What it decides.")
    kind: str = Field(description="switch, integer, number, text, text or null, colour, folder, choice or list.")
    allowed: str = Field(description="What it may be, in words.")
    default: bool | int | float | str | list[str] | None
    choices: list[str] = Field(description="All that it may be, or that its list may hold; empty where that is open.")
    low: float | None = Field(description="The least number.")
    high: float | None = Field(description="The largest number.")
    fixed: bool = Field(description="Whether only the operator changes it, in the file of options.")
    frozen: str | None = Field(description="Why the operator lets nobody change it; null where anybody may.")
    steers: bool = Field(description="Whether it changes anything; the others are there for programs that ask for it.")


class SectionDocument(BaseModel):
    """Options that belong together."""

    title: str
    options: list[OptionDocument]


@router.get("", operation_id="describe_options")
def describe_options(context: Shared) -> list[SectionDocument]:
    """Every option by section, with its default, what it may be and whether it can be changed."""
    freezing = context.settings.freezing
    return [
        SectionDocument(title=title, options=[_document(name, option, freezing) for name, option in options.items()])
        for title, options in SECTIONS.items()
    ]


def _document(name: str, option: Option, freezing: Freezing) -> OptionDocument:
    return OptionDocument(
        name=name,
        about=option.about,
        kind=option.kind,
        allowed=option.allowed,
        default=_json(option.default),
        choices=list(option.choices),
        low=option.low,
        high=option.high,
        fixed=option.fixed,
        frozen=freezing.reason(name),
        steers=name in STEERING,
    )


def _json(value: Value) -> bool | int | float | str | list[str] | None:
    return list(value) if isinstance(value, tuple) else value
