"""`/sdapi/v1/prompt-styles`, and the styles that a request names. The files are read anew for every question."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter

from darkroom.api.context import Shared
from darkroom.errors import LimitExceeded
from darkroom.prompt.styles import Style, load, merge
from darkroom.settings import Settings

router = APIRouter(prefix="/sdapi/v1", tags=["lists"])

_NO_STYLE = frozenset({"", "None"})


@router.get("/prompt-styles", operation_id="get_prompt_styles_sdapi_v1_prompt_styles_get")
def get_prompt_styles(context: Shared) -> list[dict[str, str | None]]:
    """The styles that a request may name. With several files each one's begin with a heading, whose texts are null."""
    return [
        {"name": style.name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
        for style in load(context.settings.style_files)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenStyles:
    """The styles of a request, in its order. `unknown` names those that no file has: they add nothing."""

    styles: tuple[Style, ...] = ()
    unknown: tuple[str, ...] = ()
    max_chars: int

    def positive(self, prompt: str) -> str:
        """A prompt with all styles merged in. Raises LimitExceeded."""
        return self._merged("prompt", prompt, [style.prompt for style in self.styles])

    def negative(self, prompt: str) -> str:
        """A negative prompt with all styles merged in. Raises LimitExceeded."""
        return self._merged("negative_prompt", prompt, [style.negative_prompt for style in self.styles])

    def _merged(self, field: str, prompt: str, texts: Iterable[str | None]) -> str:
        for text in texts:
            prompt = merge(text or "", prompt)
            if len(prompt) > self.max_chars:  # at every step: a style may double what it is given
                raise LimitExceeded(field, f"{len(prompt)} characters", f"at most {self.max_chars}")
        return prompt

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the client should hear about names that mean nothing."""
        return tuple(f"style {name[:80]!r} is unknown" for name in self.unknown)


def choose_styles(names: Sequence[str] | None, settings: Settings) -> ChosenStyles:
    """The styles of these names. A1111: one that is unknown counts as an empty one."""
    known = {style.name: style for style in load(settings.style_files)} if names else {}
    return ChosenStyles(
        styles=tuple(known.get(name, Style(name=name)) for name in names or ()),
        unknown=tuple(name for name in names or () if name not in known and name not in _NO_STYLE),
        max_chars=settings.max_prompt_chars,
    )
