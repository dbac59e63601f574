"""Styles: named texts that a request adds to its prompts, and the CSV files that hold them.

Knows the files' format, how a style is merged into a prompt and how it is found again in one. Knows no request.
"""

import csv
import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACE = "{prompt}"
"""Stands in a style's text for the prompt that it is merged with."""

_FIELDS = ("name", "prompt", "negative_prompt")
_DIVIDER_WIDTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What a style adds to either prompt. Both texts are None where it is only a heading in a list."""

    name: str
    prompt: str | None = ""
    negative_prompt: str | None = ""


def load(patterns: Iterable[Path]) -> tuple[Style, ...]:
    """The styles of all files that the patterns name; the name of a pattern may hold `*` and `?`.

    With several files a heading stands before each one's styles. A file that is missing or cannot be read as UTF-8 has
    none. A name that comes twice keeps its first place and gets its last texts.
    """
    files = find_files(patterns)
    styles: dict[str, Style] = {}
    for path in files:
        if len(files) > 1:
            heading = f" {path.stem.upper()} ".center(_DIVIDER_WIDTH, "-")
            styles[heading] = Style(name=heading, prompt=None, negative_prompt=None)
        styles.update((style.name, style) for style in _read_file(path))
    return tuple(styles.values())


def find_files(patterns: Iterable[Path]) -> tuple[Path, ...]:
    """The files that the patterns name, each once; one without wildcards need not be there."""
    return tuple(dict.fromkeys(_found(patterns)))


def _found(patterns: Iterable[Path]) -> Iterator[Path]:
    for pattern in patterns:
        if any(wild in pattern.name for wild in "*?"):
            yield from sorted(pattern.parent.glob(pattern.name))
        else:
            yield pattern


def _read_file(path: Path) -> list[Style]:
    try:
        return read(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return []


def read(text: str) -> list[Style]:
    """The styles of a file's text. Its header is `name,prompt,negative_prompt`, or `name,text` in old files.

    Rows without a name, or whose name begins with `#`, are no styles; nor is what is no CSV.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, restval="")
    found = []
    try:
        for row in rows:
            name = row.get("name") or ""
            if name and not name.startswith("#"):
                prompt = row.get("prompt", row.get("text", ""))
                found.append(Style(name=name, prompt=prompt, negative_prompt=row.get("negative_prompt", "")))
    except csv.Error:
        return found
    return found


def write(styles: Iterable[Style]) -> str:
    """The text of a file of styles, headings left out."""
    sink = io.StringIO(newline="")
    rows = csv.writer(sink)
    rows.writerow(_FIELDS)
    rows.writerows(
        (style.name, style.prompt, style.negative_prompt or "") for style in styles if style.prompt is not None
    )
    return sink.getvalue()


def save(path: Path, styles: Iterable[Style]) -> None:
    """Replace a file of styles in one step; the old one stays as `<name>.bak`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8-sig", newline="", dir=path.parent, delete=False) as draft:
        draft.write(write(styles))
    if path.is_file():
        shutil.copy(path, path.with_name(path.name + ".bak"))
    Path(draft.name).replace(path)


def merge(style: str, prompt: str) -> str:
    """A prompt with one style's text: put around it where the style says where, else appended."""
    if PLACE in style:
        return style.replace(PLACE, prompt)
    # A1111: the prompt loses its outer blanks even where the style adds nothing.
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)


def apply(prompt: str, texts: Iterable[str | None]) -> str:
    """A prompt with several styles' texts, one after the other."""
    for text in texts:
        prompt = merge(text or "", prompt)
    return prompt


def extract(styles: Sequence[Style], prompt: str, negative_prompt: str) -> tuple[list[str], str, str]:
    """The names of the styles that both prompts bear, innermost first, and the prompts without them.

    The first style that matches is cut out, then the next among those that were not used yet, until none matches.
    """
    left, names = list(styles), list[str]()
    while True:
        for style in left:
            cut = _cut_both(style, prompt, negative_prompt)
            if cut:
                prompt, negative_prompt = cut
                left.remove(style)
                names.append(style.name)
                break
        else:
            return names[::-1], prompt, negative_prompt


def _cut_both(style: Style, prompt: str, negative_prompt: str) -> tuple[str, str] | None:
    if not style.prompt and not style.negative_prompt:
        return None
    positive = _cut(style.prompt or "", prompt)
    negative = _cut(style.negative_prompt or "", negative_prompt)
    return None if positive is None or negative is None else (positive, negative)


def _cut(style: str, prompt: str) -> str | None:
    """The prompt that a style was merged into; None where the text does not look as if it had been."""
    prompt, style = prompt.strip(), style.strip()
    if style.count(PLACE) > 1:
        return None
    if PLACE in style:
        before, _, after = style.partition(PLACE)
        fits = prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after)
        return prompt[len(before) : len(prompt) - len(after)] if fits else None
    return prompt.removesuffix(style).removesuffix(", ") if prompt.endswith(style) else None
