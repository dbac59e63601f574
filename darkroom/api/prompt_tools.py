"""`/prompt`: what helps to write prompts: how long they are, and styles to keep.

Draws nothing, and changes nothing but the file of styles.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from darkroom.api.checkpoints import choose_checkpoint
from darkroom.api.context import Context, Shared
from darkroom.api.models import Wire
from darkroom.api.styles import choose_styles
from darkroom.coerce import Int, Text, Texts
from darkroom.errors import BadRequest, LimitExceeded, UnknownName
from darkroom.options.values import OptionValues
from darkroom.prompt.chunks import CHUNK_TOKENS
from darkroom.prompt.composition import split
from darkroom.prompt.grammar import cut_networks, strip_comments
from darkroom.prompt.schedule import Timeline, schedule
from darkroom.prompt.styles import Style, find_files, load, save

router = APIRouter(prefix="/prompt", tags=["prompt"])

_STEPS = 20
_MOST_VARIANTS = 200
"""Texts of one prompt that are counted: prompt editing may make very many, of nearly the same length."""


class Prompts(Wire):
    """Prompts whose length is asked for."""

    prompt: Text = Field("", description="What the picture shows.")
    negative_prompt: Text = Field("", description="What the picture does not show.")
    styles: Texts | None = Field(
        None, description="Styles that will be applied; counted if the option include_styles_into_token_counters says."
    )
    steps: Int = Field(_STEPS, description="Sampling steps, by which prompt editing goes.")


class Length(BaseModel):
    """How long a prompt is."""

    tokens: int = Field(description="Of CLIP, by the longest text of prompt editing and of parts joined by AND.")
    limit: int = Field(description="What fits the chunks of 75 that are begun.")


class Lengths(BaseModel):
    """How long both prompts are."""

    prompt: Length
    negative_prompt: Length


class StyleTexts(Wire):
    """What a style adds to prompts; `{prompt}` in a text is where the prompt stands."""

    prompt: Text = Field("", description="For the prompt.")
    negative_prompt: Text = Field("", description="For the negative prompt.")


Name = Annotated[str, InPath(description="The style's name.")]


@router.post("/tokens", operation_id="count_prompt_tokens")
async def count_tokens(wire: Prompts, context: Shared) -> Lengths:
    """How many tokens the prompts are, for the checkpoint that is in use."""
    for field in ("prompt", "negative_prompt"):
        text, most = getattr(wire, field), context.settings.max_prompt_chars
        if len(text) > most:
            raise LimitExceeded(field, f"{len(text)} characters", f"at most {most}")
    return await to_thread.run_sync(_lengths, wire, context, limiter=context.workers)


def _lengths(wire: Prompts, context: Context) -> Lengths:
    values = context.options.snapshot()
    chosen = choose_styles(wire.styles if values.include_styles_into_token_counters else None, context.settings)
    prompt, negative = chosen.positive(wire.prompt), chosen.negative(wire.negative_prompt)
    parts = [part.text for part in split(_bare(prompt))]
    return Lengths(
        prompt=_length(parts, wire.steps, context, values),
        negative_prompt=_length([_bare(negative)], wire.steps, context, values),
    )


def _bare(prompt: str) -> str:
    """A prompt without what no text encoder sees."""
    return cut_networks(strip_comments(prompt))[0]


def _length(parts: Sequence[str], steps: int, context: Context, values: OptionValues) -> Length:
    timeline = Timeline(steps=max(steps, 1), old_rules=values.use_old_scheduling)
    texts = dict.fromkeys(entry.text for part in parts for entry in schedule(part, timeline))
    checkpoints = context.engine.checkpoints()
    width = choose_checkpoint(checkpoints, values.sd_model_checkpoint).text_width if checkpoints else None
    count = max(
        context.engine.count_tokens(width, text, values.emphasis, values.comma_padding_backtrack)
        for text in list(texts)[:_MOST_VARIANTS]
    )
    return Length(tokens=count, limit=max(-(-count // CHUNK_TOKENS), 1) * CHUNK_TOKENS)


@router.put("/styles/{name}", operation_id="keep_style")
async def keep_style(name: Name, wire: StyleTexts, context: Shared) -> dict[str, Any]:
    """Keep a style, in place of one of the same name."""
    if not name.strip() or name.strip() != name or name.startswith("#"):
        raise BadRequest("name", name, "must be a text without blanks around it, and not begin with #")
    for field in ("prompt", "negative_prompt"):
        text, most = getattr(wire, field), context.settings.max_prompt_chars
        if len(text) > most:
            raise LimitExceeded(field, f"{len(text)} characters", f"at most {most}")
    style = Style(name=name, prompt=wire.prompt, negative_prompt=wire.negative_prompt)
    await to_thread.run_sync(_keep, context, style, limiter=context.workers)
    return {"name": name, "prompt": wire.prompt, "negative_prompt": wire.negative_prompt}


@router.delete("/styles/{name}", operation_id="forget_style", status_code=204)
async def forget_style(name: Name, context: Shared) -> None:
    """Take a style away."""
    await to_thread.run_sync(_forget, context, name, limiter=context.workers)


def _keep(context: Context, style: Style) -> None:
    """Into the file that has a style of this name, or else the first one."""
    with context.style_files:
        files = find_files(context.settings.style_files)
        first = files[0] if files else context.settings.data_dir / "styles.csv"
        path = next((one for one in files if style.name in _names(one)), first)
        known = {one.name: one for one in load([path])}
        save(path, {**known, style.name: style}.values())


def _forget(context: Context, name: str) -> None:
    with context.style_files:
        holding = [one for one in find_files(context.settings.style_files) if name in _names(one)]
        if not holding:
            raise UnknownName("name", name, [style.name for style in load(context.settings.style_files)])
        for path in holding:
            save(path, [style for style in load([path]) if style.name != name])


def _names(path: Path) -> list[str]:
    return [style.name for style in load([path])]
