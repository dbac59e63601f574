"""File and folder names from patterns such as `[seed]-[prompt_spaces]`: what each tag says, which characters may stay.

Whatever a pattern or a prompt holds, a name that comes of it stays one name: no separator, no hidden file, no endless
length. Knows the facts of one picture; knows no folder and no request.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from types import MappingProxyType
from zoneinfo import ZoneInfo

from darkroom.images.codecs import Pixels

MAX_PATTERN = 1000
"""Characters of a pattern that are read."""

MAX_PART = 128
"""Characters of one tag's value. A1111: --filenames-max-length."""

MAX_NAME_BYTES = 200
"""Of a file's stem or a folder's name; file systems take 255, with number, suffix and extension."""

MAX_FOLDERS = 8
"""Folders that a pattern may open inside each other."""

_TAG = re.compile(r"\[([^\[\]]+)\]")
_FORBIDDEN = re.compile(r'[#<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_WORD_ENDS = re.compile(r"[\s!-/:-@\[-`{-~]+")
_DIRECTIVE = re.compile(r"%([aAbBdfHIjmMpSuUVwWyYzZ%])")
_TIME = "%Y%m%d%H%M%S"

Value = str | int | float | None
"""What a tag says; None where it does not apply, which drops the text before it too."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """What a name can tell of a picture. `place` counts the job's pictures from 0; `plain_prompt` is without styles.

    `denoising` is None where there is none, `vae` is "" for the checkpoint's own. `max_words` is for [prompt_words].
    """

    picture: Pixels
    seed: int
    seeds: tuple[int, ...]
    place: int
    batch_size: int
    n_iter: int
    prompt: str
    negative_prompt: str
    plain_prompt: str
    styles: tuple[str, ...]
    steps: int
    cfg_scale: float
    sampler: str
    scheduler: str
    model_name: str
    model_hash: str
    vae: str
    clip_skip: int
    denoising: float | None
    job_began: datetime
    now: datetime
    basename: str = ""
    max_words: int = 8


def fill(pattern: str, facts: Facts) -> str:
    """The pattern with its tags replaced; those that nobody knows stay. Tags are never read twice."""
    parts: list[str] = []
    end = 0
    pattern = pattern[:MAX_PATTERN]
    for match in _TAG.finditer(pattern):
        before, end = pattern[end : match.start()], match.end()
        name, arguments = _split(match[1])
        tag = _TAGS.get(name.lower())
        value: Value = f"[{name}]" if tag is None else tag(facts, arguments)
        if value is not None:
            parts += [before, str(value) if tag is None else str(value).translate(_SEPARATORS)]
    return "".join([*parts, pattern[end:]])


def file_stem(pattern: str, facts: Facts) -> str:
    """A file's name without number and extension; may be empty."""
    return fit(fill(pattern, facts).replace("/", "_"))


def folders(pattern: str, facts: Facts) -> list[str]:
    """The folders that a pattern names, outermost first: a slash of its own begins the next one."""
    names = map(fit, fill(pattern or "[prompt_words]", facts).replace("\\", "/").split("/"))
    return [name for name in names if name][:MAX_FOLDERS]


def fit(name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """A name that every file system takes, shows and does not follow elsewhere."""
    cleaned = _FORBIDDEN.sub("_", name).strip(" .")
    return cleaned.encode()[:max_bytes].decode(errors="ignore").rstrip(" .")


def part(text: str, *, blanks: bool = True) -> str:
    """A piece of a name. Without `blanks` they become underscores."""
    cleaned = _FORBIDDEN.sub("_", text if blanks else text.replace(" ", "_"))
    return cleaned.lstrip(" ")[:MAX_PART].rstrip(" .")


_SEPARATORS = str.maketrans({"/": "_", "\\": "_"})


def _split(tag: str) -> tuple[str, tuple[str, ...]]:
    """A tag's name and its arguments: `name<first><second>`."""
    arguments: list[str] = []
    while tag.endswith(">") and "<" in tag:
        rest, _, argument = tag[:-1].rpartition("<")
        if ">" in argument:
            break
        tag, arguments = rest, [argument, *arguments]
    return tag, tuple(arguments)


def _digest(data: bytes, arguments: tuple[str, ...], default: int | None = 8) -> str:
    wanted = arguments[0] if arguments else ""
    return hashlib.sha256(data).hexdigest()[: int(wanted[:4]) if wanted.isdecimal() else default]


def _time(moment: datetime, arguments: tuple[str, ...]) -> str:
    """A moment in a format with the usual directives, and in a time zone; an unknown one is the server's own."""
    wanted, zone = (*arguments, "", "")[:2]
    local = moment.astimezone(_zone(zone))
    return part(_DIRECTIVE.sub(lambda match: local.strftime(match[0]), wanted or _TIME))


def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (LookupError, ValueError, OSError):
        return None


def _words(facts: Facts) -> str:
    words = [word for word in _WORD_ENDS.split(facts.prompt) if word]
    return part(" ".join(words[: facts.max_words] or ["empty"]))


def _has_prompt(facts: Facts, arguments: tuple[str, ...]) -> str:
    """Of each `text|default` the text where the prompt has it, else the default."""
    prompt = facts.prompt.lower()

    def found() -> Iterator[str]:
        for argument in arguments:
            expected, _, default = argument.partition("|")
            yield expected.lower() if expected.lower() in prompt else default.partition("|")[0]

    return part("".join(found()), blanks=False)


def _schedule(facts: Facts) -> str:
    return part(facts.scheduler.capitalize())


def _both(facts: Facts) -> str:
    return f"{part(facts.sampler)} {_schedule(facts)}"


def _styles(facts: Facts) -> str:
    return part(", ".join(style for style in facts.styles if style != "None") or "None")


def _vae(facts: Facts) -> str:
    # A1111: the text of Python's type where there is none.
    return part(facts.vae.partition(".")[0]) if facts.vae else "NoneType"


def _full_text(facts: Facts) -> bytes:
    return f"{facts.prompt} {facts.negative_prompt}".encode()


_TAGS: Mapping[str, Callable[[Facts, tuple[str, ...]], Value]] = MappingProxyType(
    {
        "basename": lambda facts, _: facts.basename or "img",
        "seed": lambda facts, _: facts.seed,
        "seed_first": lambda facts, _: facts.seed if facts.batch_size == 1 else facts.seeds[0],
        "seed_last": lambda facts, _: None if facts.batch_size == 1 else facts.seeds[-1],
        "steps": lambda facts, _: facts.steps,
        "cfg": lambda facts, _: facts.cfg_scale,
        "width": lambda facts, _: facts.picture.shape[1],
        "height": lambda facts, _: facts.picture.shape[0],
        "styles": lambda facts, _: _styles(facts),
        "sampler": lambda facts, _: part(facts.sampler),
        "scheduler": lambda facts, _: _schedule(facts),
        "sampler_scheduler": lambda facts, _: _both(facts),
        "model_hash": lambda facts, _: part(facts.model_hash),
        "model_name": lambda facts, _: part(facts.model_name),
        "date": lambda facts, _: f"{facts.now:%Y-%m-%d}",
        "datetime": lambda facts, arguments: _time(facts.now, arguments),
        "job_timestamp": lambda facts, _: _time(facts.job_began, ()),
        "prompt_hash": lambda facts, arguments: _digest(facts.prompt.encode(), arguments),
        "negative_prompt_hash": lambda facts, arguments: _digest(facts.negative_prompt.encode(), arguments),
        "full_prompt_hash": lambda facts, arguments: _digest(_full_text(facts), arguments),
        "prompt": lambda facts, _: part(facts.prompt, blanks=False),
        "prompt_no_styles": lambda facts, _: part(facts.plain_prompt, blanks=False),
        "prompt_spaces": lambda facts, _: part(facts.prompt),
        "prompt_words": lambda facts, _: _words(facts),
        "batch_number": lambda facts, _: None if facts.batch_size == 1 else facts.place % facts.batch_size + 1,
        "batch_size": lambda facts, _: facts.batch_size,
        "generation_number": lambda facts, _: None if facts.batch_size * facts.n_iter == 1 else facts.place + 1,
        "hasprompt": _has_prompt,
        "clip_skip": lambda facts, _: facts.clip_skip,
        "denoising": lambda facts, _: facts.denoising or None,
        "vae_filename": lambda facts, _: _vae(facts),
        "none": lambda _facts, _: "",
        "image_hash": lambda facts, arguments: _digest(facts.picture.tobytes(), arguments, None),
    }
)
"""Every tag by its name. A1111's [user] is missing: who a request's user is does not belong into a file's name."""
