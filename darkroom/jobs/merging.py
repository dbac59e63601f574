"""What a merge of checkpoints is asked for, with every choice made. Knows neither HTTP nor tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["Weighted sum", "Add difference", "No interpolation"]
METHODS: tuple[Method, ...] = get_args(Method)

NumberFormat = Literal["fp32", "fp16", "bf16"]

ConfigSource = Literal["A, B or C", "B", "C", "Don't"]
CONFIG_SOURCES: tuple[ConfigSource, ...] = get_args(ConfigSource)
"""In this order they are numbers in the recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What the result's file tells of its making: the parents' own texts (`copied`), the recipe, and `extra` texts."""

    written: bool = True
    recipe: bool = True
    copied: bool = True
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOrder:
    """One merge. `a`, `b`, `c` are checkpoints' keys; a method that does not look at one has "" for it.

    Weighted sum is (1 - m) A + m B, add difference A + m (B - C). `block_weights` stand in for the multiplier m in the
    UNet's blocks, input blocks first; of one more than there are blocks the first is for everything else, which
    `multiplier` is for otherwise. `number_format` None keeps the formats. `vae` is an autoencoder's key, "" for that of
    A. Weights in whose names `discard`, a regular expression, is found are left out. `name` is the file's name without
    its ending, "" to make one of the parents' names.
    """

    a: str
    b: str = ""
    c: str = ""
    method: Method
    multiplier: float = 0.3
    block_weights: tuple[float, ...] = ()
    number_format: NumberFormat | None = None
    vae: str = ""
    discard: str = ""
    name: str = ""
    overwrite: bool = False
    config_source: ConfigSource = "A, B or C"
    notes: Notes = Notes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How far a merge is: what it does, and how many of its parts (weights, or files to be hashed) are done."""

    text: str
    done: int
    total: int


Report = Callable[[Stage], None]


def parents_needed(method: Method) -> int:
    """How many checkpoints a method looks at."""
    return {"No interpolation": 1, "Weighted sum": 2, "Add difference": 3}[method]


def default_name(method: Method, multiplier: float, names: tuple[str, ...]) -> str:
    """The result's name where none was given. A1111: its way to write them, `names` being the parents' model names."""
    share = round(multiplier, 2)
    match method:
        case "No interpolation":
            return names[0]
        case "Weighted sum":
            return f"{round(1 - multiplier, 2)}({names[0]}) + {share}({names[1]})"
        case "Add difference":
            return f"{names[0]} + {share}({names[1]} - {names[2]})"
