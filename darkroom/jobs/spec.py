"""The resolved request: frozen, picklable, nothing left that a default could fill. Knows nothing of HTTP or
networks.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB pixels `[H, W, 3]`."""

NoiseSource = Literal["GPU", "CPU", "NV"]
Emphasis = Literal["None", "Ignore", "Original", "No norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitImage:
    """Where an img2img job starts. Several pictures are dealt out to the images of a batch; one that has not the job's
    size is stretched as a latent.

    `latent_mask` is `[H/8, W/8]` float32 in 0..1, 1 where the picture is repainted; None repaints everything.
    `fill` is what lies under the mask before sampling; the picture-space fill ("fill") was painted into `pictures`
    already.
    """

    pictures: tuple[Picture, ...]
    denoising_strength: float
    latent_mask: NDArray[np.float32] | None = None
    fill: Literal["fill", "original", "latent noise", "latent nothing"] = "original"
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0
    fix_steps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One request of `batch_size * n_iter` pictures, with every choice made.

    `checkpoint` is a CheckpointInfo.key. `seeds` and `subseeds` have one entry per picture. `sampler` is a sampler's
    exact name, `scheduler` a label or "Automatic". `width` and `height` are as asked; pictures are floored to multiples
    of 8. `clip_skip` 1 takes the last layer of the text encoder. `params` go into the infotext after the fixed entries.
    """

    kind: Literal["txt2img", "img2img"]
    checkpoint: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    cfg_scale: float
    sampler: str
    scheduler: str
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    batch_size: int = 1
    n_iter: int = 1
    subseed_strength: float = 0.0
    seed_resize_from: tuple[int, int] | None = None
    seed_delta: int = 0
    noise_source: NoiseSource = "GPU"
    eta: float | None = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = float("inf")
    s_noise: float = 1.0
    clip_skip: int = 1
    emphasis: Emphasis = "Original"
    comma_backtrack: int = 20
    init: InitImage | None = None
    task_id: str = ""
    params: tuple[tuple[str, str], ...] = field(default=())

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        return self.height // 8, self.width // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint that the engine can load. `key` names it inside Darkroom and never changes while the file stays.

    `path` is relative to the checkpoint folder, with `/`; `sha256` is None until it was computed; `config` is the YAML
    beside it.
    """

    key: str
    filename: str
    path: str
    sha256: str | None = None
    old_hash: str | None = None
    config: str | None = None
    native_size: int = 512

    @property
    def base(self) -> str:
        """File name without folder and extension."""
        return self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]

    @property
    def model_name(self) -> str:
        """Path without extension, folders joined by underscores."""
        return self.path.rsplit(".", 1)[0].replace("/", "_").replace("\\", "_")

    @property
    def short_hash(self) -> str | None:
        """First ten hexadecimal digits of the SHA-256."""
        return self.sha256[:10] if self.sha256 else None

    @property
    def title(self) -> str:
        """What `/sd-models` shows and options read back."""
        return f"{self.path} [{self.short_hash}]" if self.sha256 else self.path
