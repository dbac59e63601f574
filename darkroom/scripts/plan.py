"""What a script is: a title, declared arguments, and a plan, which yields requests and is sent what became of them.

A plan never calls the engine. Whoever drives it answers every request that it yields, in order, and keeps the limits.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from darkroom.api.models import Generation
from darkroom.images.captions import Ink
from darkroom.images.codecs import Pixels
from darkroom.images.upscale import RESAMPLERS, Enlarge
from darkroom.jobs.spec import Inversion
from darkroom.scripts.signature import Lists

Tab = Literal["txt2img", "img2img"]
BOTH: tuple[Tab, ...] = ("txt2img", "img2img")

Describer = Literal["clip", "deepdanbooru"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """A request that a script wants answered. `notes` come first among the generation text's own entries.

    With `inversion` the picture's own noise is looked for first. `colours` has those that are wanted, in place of the
    picture's it starts from, where the options ask for such a correction. Where `may_fail`, an error makes an empty
    outcome instead of ending the script. `planned` is how many requests the script will make in all, where it knows
    that before it yields them. `described` is a network and a picture: what it says of that goes behind the prompt.
    """

    request: Generation
    notes: Mapping[str, object] = field(default_factory=dict)
    inversion: Inversion | None = None
    colours: Pixels | None = None
    may_fail: bool = False
    planned: int = 0
    described: tuple[Describer, Image.Image] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """One picture with its generation text and what it was made from."""

    picture: Pixels
    text: str
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    subseed: int = 0


Describe = Callable[[Mapping[str, object]], str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What became of one request: its pictures, none if it failed or came after an interrupt.

    `describe` gives the generation text of its first picture with more notes at the end.
    """

    made: tuple[Made, ...] = ()
    describe: Describe = lambda _: ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a script answers with. `sheets` (grids, joined pictures) are in `pictures` too; `cells` are the pictures
    that the answer's lists of prompts and seeds describe. `texts` has one entry per picture, or more.
    """

    pictures: tuple[Made, ...]
    cells: tuple[Made, ...]
    texts: tuple[str, ...]
    sheets: tuple[Made, ...] = ()
    first: int = 0


Plan = Generator[Sequence[Ask], Sequence[Outcome], Result]


MAX_GRID_PIXELS = 200_000_000
"""The largest grid that anybody may ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan may know of the installation and of the options in force.

    `find_upscaler` gives the function of an upscaler, for a request's field and its value.
    """

    lists: Lists
    ink: Ink
    background: str = "#ffffff"
    grid_background: str = "#ffffff"
    return_grid: bool = True
    max_images: int = 64
    max_pixels: int = 64_000_000
    max_grid_pixels: int = MAX_GRID_PIXELS
    find_upscaler: Callable[[str, str], Enlarge | None] = lambda _field, name: RESAMPLERS.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script that a request names. `plan` is given the request, with its seeds drawn, and the arguments."""

    title: str
    arguments: type[Any]
    plan: Callable[[Any, Any, Setting], Plan]
    tabs: tuple[Tab, ...] = BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysOn:
    """A part of every request that may take arguments. What they do is done elsewhere, or nowhere.

    `listed_as` is its name in `/scripts`, "" where it is not listed; `described` whether `/script-info` has it.
    """

    title: str
    arguments: type[Any]
    tabs: tuple[Tab, ...] = BOTH
    listed_as: str = ""
    described: bool = True
