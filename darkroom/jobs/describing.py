"""What is asked about a picture, and what is said of it. Knows no network and no wording of the answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InWords:
    """Describe a picture by a sentence of so many tokens, and by what fits it best in lists of texts.

    `beams` sentences are weighed against each other. Of every list the first `lines` count, all if 0; lists called
    `left_out` do not. With `keep`, the networks stay loaded.
    """

    beams: int = 1
    shortest: int = 24
    longest: int = 48
    lines: int = 1500
    left_out: tuple[str, ...] = ()
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InTags:
    """Describe a picture by the tags that are at least so likely (0..1). With `keep`, the network stays loaded."""

    threshold: float = 0.5
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is said of a picture: a sentence, and texts with their shares (0..1): the best of every list in turn, or
    tags in the network's order. `warnings` say what could not be asked.
    """

    sentence: str = ""
    texts: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()
