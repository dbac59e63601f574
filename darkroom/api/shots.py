"""A job's finished pictures, ready to be encoded and saved. Knows no format and no folder."""

from dataclasses import dataclass

from darkroom.images.codecs import Pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """One finished picture with its generation text, or a by-product of one, told by the `suffix` of its file.

    A by-product's text goes into its file alone. `place` counts the job's pictures from 0. `prompt` is for pictures
    whose prompt is not the job's.
    """

    picture: Pixels
    text: str
    seed: int
    prompt: str = ""
    place: int = 0
    suffix: str = ""
    returned: bool = True
    saved: bool = True
