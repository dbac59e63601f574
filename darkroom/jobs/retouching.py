"""Work on a picture that is finished: one network over one picture, without any sampling. A job of its own kind.

Knows names and pictures; knows nothing of networks.
"""

from dataclasses import dataclass
from typing import Literal

from darkroom.jobs.spec import TILED, FaceRestoration, JobSpec, Picture, Tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlargement:
    """One pass of an upscaling network, in tiles; its factor is its own."""

    upscaler: str
    tiles: Tiles = TILED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetouchSpec:
    """One picture `[H, W, 3]` and what is done to it. `task_id` is the name that a client gave."""

    picture: Picture
    work: Enlargement | FaceRestoration
    task_id: str = ""
    kind: Literal["extras"] = "extras"
    batch_size: Literal[1] = 1
    n_iter: Literal[1] = 1
    passes: Literal[1] = 1

    @property
    def title(self) -> str:
        """What is going on, in a word."""
        return "Upscale" if isinstance(self.work, Enlargement) else self.work.restorer


Spec = JobSpec | RetouchSpec
"""What an engine may be asked to do."""
