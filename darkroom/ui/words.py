"""What the pages say, in the reader's language. English is the source; a language is a JSON file of English to its own.

Knows texts only, no pages.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TRANSLATIONS = Path(__file__).parent / "translations"
ENGLISH = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of one language; `Words()` is English. `words("Steps")` gives the text to show."""

    language: str = ENGLISH
    table: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str, **values: object) -> str:
        """A text in this language, its `{places}` filled with `values`. A text that nobody translated stays English."""
        found = self.table.get(text) or text
        return found.format(**values) if values else found


def languages() -> tuple[str, ...]:
    """The languages that there are words for, English first."""
    return (ENGLISH, *sorted(path.stem for path in TRANSLATIONS.glob("*.json")))


def read_words(language: str) -> Words:
    """The words of a language of `languages`."""
    if language == ENGLISH:
        return Words()
    table: dict[str, str] = json.loads((TRANSLATIONS / f"{language}.json").read_text(encoding="utf-8"))
    return Words(language=language, table=table)


def choose_language(wanted: str, known: tuple[str, ...]) -> str:
    """The first known language of a list as `Accept-Language` has it (RFC 9110, section 12.5.4); English if none is."""
    ranked: list[tuple[float, int, str]] = []
    for place, entry in enumerate(wanted.split(",")):
        tag, _, weight = entry.strip().partition(";q=")
        try:
            ranked.append((-float(weight or 1), place, tag.strip().lower()))
        except ValueError:
            continue
    for _, _, tag in sorted(ranked):
        short = tag.partition("-")[0]
        for name in (tag, short):
            if name in known:
                return name
    return ENGLISH
