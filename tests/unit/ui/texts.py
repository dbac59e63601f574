"""Every text of the pages that a translation has to have, collected from where it is said."""

import ast
import json
import re
from collections.abc import Iterator

from darkroom import extensions
from darkroom.options.table import SECTIONS
from darkroom.options.values import STEERING
from darkroom.scripts.signature import Lists
from darkroom.settings import Settings
from darkroom.ui.mount import ASSETS
from darkroom.ui.words import Words

_STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\$]|\\.)*`)"""
_SAID = re.compile(rf"\b(?:say|t|mark|heading)\(\s*(?P<text>{_STRING})")
_ELSEWHERE = {
    "boards.js": re.compile(rf"\bnew Error\(\s*(?P<text>{_STRING})"),
    "sending.js": re.compile(rf"\blabel: (?P<text>{_STRING})"),
}
"""Texts of scripts that are said where they are shown, by the name of the file."""

_REFUSALS = re.compile(rf"_missing\(\s*[^,()]+,\s*(?P<text>{_STRING})")


class Recorder(Words):
    """English that remembers what was said."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        object.__setattr__(self, "said", said)

    said: list[str]

    def __call__(self, text: str, **values: object) -> str:
        self.said.append(text)
        return super().__call__(text, **values)


def said_by_pages() -> Iterator[str]:
    """What is said while the pages are put together, labels and descriptions of requests' fields among it."""
    from darkroom.ui.app import build

    said: list[str] = []
    build(Settings(), Recorder(said))
    yield from said
    starting = (ASSETS.parent / "starting.py").read_text(encoding="utf-8")
    yield from (_read(found["text"]) for found in _REFUSALS.finditer(starting))


def said_by_scripts() -> Iterator[str]:
    """What is said in the browser."""
    for path in sorted(ASSETS.glob("*.js")):
        source = path.read_text(encoding="utf-8")
        for pattern in filter(None, (_SAID, _ELSEWHERE.get(path.name))):
            yield from (_read(found["text"]) for found in pattern.finditer(source))


def said_of_options() -> Iterator[str]:
    """What the page Settings says of the options that have an effect, and their sections."""
    for title, options in SECTIONS.items():
        yield title
        yield from (option.about for name, option in options.items() if name in STEERING)


def said_of_generation_scripts() -> Iterator[str]:
    """The labels of what the scripts ask for, and their remarks."""
    registry = extensions.registry([])
    for entry in [*registry.describe("txt2img", Lists()), *registry.describe("img2img", Lists())]:
        arguments = entry["args"]
        assert isinstance(arguments, list)
        for one in arguments:
            yield one["label"].replace("`", "") or str(one["value"])
            if isinstance(one["value"], list):  # boxes, each with its words
                yield from one["choices"] or ()


def all_texts() -> frozenset[str]:
    """All of them."""
    said = (*said_by_pages(), *said_by_scripts(), *said_of_options(), *said_of_generation_scripts())
    return frozenset(text for text in said if text.strip())


def _read(literal: str) -> str:
    return str(ast.literal_eval(literal.replace("`", '"')))


if __name__ == "__main__":  # Gradio leaves loops open, which a test's process would be blamed for
    print(json.dumps(sorted(all_texts())))
